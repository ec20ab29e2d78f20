/**
 * Readers of the command line's values: text in, number out, or one line that says what was wanted.
 */
import { InvalidArgumentError } from "commander";
import { isOrigin } from "../http/origin.ts";
import { type Scope, SCOPES } from "../keys/scope.ts";

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

const COUNT_UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20 };

/** Reads counts between commas, each in [lowest, highest], with K or M for powers of 1,024. */
export function wholeNumbers(lowest: number, highest: number): (text: string) => number[] {
  return (text) =>
    text.split(",").map((word) => {
      const [, digits, unit] = /^([0-9]{1,9})([KM]?)$/i.exec(word) ?? [];
      const value = Number(digits) * (COUNT_UNITS[unit?.toUpperCase() ?? ""] ?? NaN);
      if (value >= lowest && value <= highest) return value;
      throw new InvalidArgumentError(
        `wanted whole numbers from ${lowest} to ${highest} between commas, such as 4K,32K`,
      );
    });
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

/** Reads one more origin of web pages; throws InvalidArgumentError for a pattern or a path. */
export function origins(text: string, before: readonly string[]): readonly string[] {
  if (!isOrigin(text)) throw new InvalidArgumentError("wanted an origin like https://chat.example");
  return [...before, text];
}

/** Reads scopes between commas; throws InvalidArgumentError naming them. */
export function scopes(text: string): readonly Scope[] {
  const found = [...new Set(text.split(","))];
  if (!found.every((word): word is Scope => (SCOPES as readonly string[]).includes(word))) {
    throw new InvalidArgumentError(`wanted some of ${SCOPES.join(",")}`);
  }
  return found;
}

const SIZE_UNITS: Readonly<Record<string, number>> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** A size in bytes: a number with K, M or G behind it (powers of 1,024). */
export function byteSize(text: string): number {
  const [, digits, unit] = /^(\d{1,6}(?:\.\d{1,3})?)([KMG])$/i.exec(text) ?? [];
  if (digits === undefined || unit === undefined) {
    throw new InvalidArgumentError(`wanted a size such as 6G or 900M`);
  }
  return Math.floor(Number(digits) * SIZE_UNITS[unit.toUpperCase()]!);
}
