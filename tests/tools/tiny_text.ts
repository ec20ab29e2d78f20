/** The embedded model's tokenizer and defaults, for tests of text. */
import { loadTextModule, Tokenizer } from "../../wasm/text.ts";
import { openModelFolder } from "../../runtime/weights/model_folder.ts";

export const TINY_DIRECTORY = decodeURIComponent(
  new URL("../../models/kedge-tiny", import.meta.url).pathname,
);

const folder = await openModelFolder(TINY_DIRECTORY);
loadTextModule();

export const tinyGeneration = folder.generation;
export const tinySpecials = folder.tokenizer.specials;
export const tinyVocabularySize = folder.config.shape.vocabularySize;
/** Shared by all tests of a file; never freed. */
export const tinyTokenizer = new Tokenizer(
  folder.tokenizer.tiktokenModel,
  tinySpecials,
  tinyVocabularySize,
);
