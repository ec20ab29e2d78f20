/** The embedded model's tokenizer, with its special tokens, for tests. */
import { loadTextModule, type SpecialToken, Tokenizer } from "../../wasm/text.ts";

const folder = new URL("../../models/kedge-tiny/", import.meta.url);

export const vocabularySize = 4096;

export function tiktokenModel(): Uint8Array {
  return Deno.readFileSync(new URL("tiktoken.model", folder));
}

export function specialTokens(): SpecialToken[] {
  const text = Deno.readTextFileSync(new URL("tokenizer_config.json", folder));
  const tokens: Record<string, { content: string; special: boolean }> =
    JSON.parse(text).added_tokens_decoder;
  return Object.entries(tokens)
    .map(([id, token]) => ({ id: Number(id), text: token.content, special: token.special }));
}

export function kedgeTinyTokenizer(): Tokenizer {
  loadTextModule();
  return new Tokenizer(tiktokenModel(), specialTokens(), vocabularySize);
}
