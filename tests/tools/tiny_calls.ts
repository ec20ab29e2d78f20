/** Tool calls as the embedded model writes them, in ids. */
import { tinyTokenizer } from "./tiny_text.ts";

export const encodeIds = (text: string) => Array.from(tinyTokenizer.encode(text));

/** The id of `<|name|>`. */
export const markerId = (name: string) => tinyTokenizer.specialId(`<|${name}|>`)!;

/** One call; `header` as in `functions.NAME:INDEX`. */
export const callIds = (header: string, args: string) => [
  ...[markerId("tool_call_begin"), ...encodeIds(header), markerId("tool_call_argument_begin")],
  ...[...encodeIds(args), markerId("tool_call_end")],
];
