/**
 * Readers of the command line's values: text in, number out, or one line that says what was wanted.
 */
import { InvalidArgumentError } from "commander";

/** Reads a whole number in [lowest, highest]; throws InvalidArgumentError naming the range. */
export function wholeNumber(lowest: number, highest: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^[0-9]+$/.test(text) || value < lowest || value > highest) {
      throw new InvalidArgumentError(`wanted a whole number from ${lowest} to ${highest}`);
    }
    return value;
  };
}

/** Reads a decimal number in [lowest, highest]; throws InvalidArgumentError naming the range. */
export function decimalNumber(lowest: number, highest: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^[0-9]*\.?[0-9]+$/.test(text) || value < lowest || value > highest) {
      throw new InvalidArgumentError(`wanted a number from ${lowest} to ${highest}`);
    }
    return value;
  };
}

/** Reads text that can't be empty, such as a path or a host. */
export function nonEmpty(text: string): string {
  if (text === "") throw new InvalidArgumentError("wanted at least one character");
  return text;
}
