/** Log-probabilities in the two shapes of OpenAI's API. */
import type { GenerateRequest, TokenLogprob } from "../engine/engine.ts";
import type { Tokenizer } from "../../wasm/text.ts";

const strictDecoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text of one token, or its bytes when they are not UTF-8 by themselves. */
export function tokenPiece(tokenizer: Tokenizer, id: number): string | Uint8Array {
  const bytes = tokenizer.tokenBytes(id);
  try {
    return strictDecoder.decode(bytes);
  } catch {
    return bytes;
  }
}

/** The text of one token; bytes that are not UTF-8 by themselves as `bytes:\xe2\x82`. */
export function tokenText(tokenizer: Tokenizer, id: number): string {
  const piece = tokenPiece(tokenizer, id);
  if (typeof piece === "string") return piece;
  const hex = Array.from(piece, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`);
  return `bytes:${hex.join("")}`;
}

/** An item of `choices[].logprobs.content` in a chat answer. */
function chatLogprob(tokenizer: Tokenizer, token: TokenLogprob) {
  const entry = ({ id, logprob }: { readonly id: number; readonly logprob: number }) => ({
    token: tokenText(tokenizer, id),
    logprob,
    bytes: Array.from(tokenizer.tokenBytes(id)),
  });
  return { ...entry(token), top_logprobs: token.top.map(entry) };
}

export type ChatLogprob = ReturnType<typeof chatLogprob>;

/** Those of an answer's tokens. The stop token is no part of the text, so it is not listed. */
export function chatLogprobs(
  tokenizer: Tokenizer,
  { stopIds }: Pick<GenerateRequest, "stopIds">,
  tokens: readonly { readonly id: number; readonly logprob: TokenLogprob | null }[],
): ChatLogprob[] {
  return tokens.flatMap(({ id, logprob }) =>
    logprob === null || stopIds.includes(id) ? [] : [chatLogprob(tokenizer, logprob)]
  );
}

/** `choices[].logprobs` of a completions answer: one item a token in each list. */
export class LegacyLogprobs {
  readonly tokens: string[] = [];
  /** null for a prompt's first token, which nothing precedes. */
  readonly token_logprobs: (number | null)[] = [];
  readonly top_logprobs: (Record<string, number> | null)[] = [];
  /** Where the token begins in the choice's text, in code points. */
  readonly text_offset: number[] = [];

  add(tokenizer: Tokenizer, id: number, logprob: TokenLogprob | null, offset: number): void {
    const text = tokenText(tokenizer, id);
    this.tokens.push(text);
    this.token_logprobs.push(logprob?.logprob ?? null);
    this.text_offset.push(offset);
    if (logprob === null) {
      this.top_logprobs.push(null);
      return;
    }
    // The token itself is listed too, as in OpenAI's own answers. fromEntries defines fields
    // without setting them, so a token "__proto__" is a key like any other.
    const best = logprob.top.map((each): [string, number] => [
      tokenText(tokenizer, each.id),
      each.logprob,
    ]);
    this.top_logprobs.push(Object.fromEntries([...best, [text, logprob.logprob]]));
  }

  /** Takes over what belongs to the text that follows. */
  append(more: LegacyLogprobs): void {
    // Item by item: a prompt may have more tokens than a call may have arguments.
    more.tokens.forEach((token, at) => {
      this.tokens.push(token);
      this.token_logprobs.push(more.token_logprobs[at]!);
      this.top_logprobs.push(more.top_logprobs[at]!);
      this.text_offset.push(more.text_offset[at]!);
    });
  }
}
