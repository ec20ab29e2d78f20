/**
 * Token ids -> an answer's text and tool calls.
 *
 * Calls are read from the markers' ids, one token at a time, so nothing has to be held back but the
 * header of a call, and text that only looks like a marker is text. What is no call becomes text:
 *
 *     text CALLS_BEGIN (CALL_BEGIN header CALL_ARGUMENTS arguments CALL_END)* CALLS_END text
 *
 * Markers may be missing: a call also begins outside of a section, and any marker ends what is
 * under way. Text between two calls is dropped, as it is in Kimi's own reader.
 */
import { MAX_CALL_HEADER_CHARACTERS } from "../limits.ts";
import { StreamDecoder, type Tokenizer } from "../../wasm/text.ts";
import { TextStream } from "./text_stream.ts";
import {
  CALL_ARGUMENTS,
  CALL_BEGIN,
  CALL_END,
  calledName,
  callId,
  CALLS_BEGIN,
  CALLS_END,
} from "./tool_calls.ts";

/** A part of one tool call. */
export interface CallPiece {
  /** 0 for the answer's first call. */
  readonly index: number;
  /** In the first piece of a call. */
  readonly head: { readonly id: string; readonly name: string } | null;
  /** More of the arguments' text; not checked. */
  readonly arguments: string;
}

/** What one token made certain. */
export interface AnswerPiece {
  readonly text: string;
  readonly call: CallPiece | null;
}

export interface AnswerOptions {
  /** Strings that end the text; arguments are not searched for them. */
  readonly stops: readonly string[];
  /** Names of the tools that the model was shown; null: markers are text like any other. */
  readonly tools: readonly string[] | null;
}

type State = "text" | "between" | "header" | "arguments";

const NOTHING: AnswerPiece = { text: "", call: null };

export class AnswerStream {
  readonly #tokenizer: Tokenizer;
  readonly #text: TextStream;
  readonly #declared: ReadonlySet<string>;
  /** What a marker's id leads to. */
  readonly #markers = new Map<number, string>();
  readonly #callIds = new Set<string>();
  /** Decodes headers and arguments; one a call. */
  #decoder: StreamDecoder | null = null;
  #state: State = "text";
  #header = "";
  #calls = 0;

  constructor(tokenizer: Tokenizer, { stops, tools }: AnswerOptions) {
    this.#tokenizer = tokenizer;
    this.#text = new TextStream(tokenizer, { skipSpecial: true, stops });
    this.#declared = new Set(tools ?? []);
    if (tools === null) return;
    for (const marker of [CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_ARGUMENTS, CALL_END]) {
      const id = tokenizer.specialId(marker);
      if (id !== null) this.#markers.set(id, marker);
    }
  }

  /** The stop string that ended the text, or null. */
  get stopped(): string | null {
    return this.#text.stopped;
  }

  /** Calls begun so far. */
  get calls(): number {
    return this.#calls;
  }

  /** Code points of text so far, whether delivered, held back or cut off by a stop string. */
  get characters(): number {
    return this.#text.characters;
  }

  push(id: number): AnswerPiece {
    const marker = this.#markers.get(id);
    if (marker !== undefined) return this.#pass(marker);
    switch (this.#state) {
      case "text":
        return { text: this.#text.push(id), call: null };
      case "between":
        return NOTHING;
      case "header":
        this.#header += this.#decoder!.push(id);
        return this.#header.length > MAX_CALL_HEADER_CHARACTERS ? this.#leave("text") : NOTHING;
      case "arguments":
        return this.#argumentPiece(this.#decoder!.push(id));
    }
  }

  /** The end of the ids. */
  end(): AnswerPiece {
    const { text, call } = this.#leave("text");
    return { text: text + this.#text.end(), call };
  }

  free(): void {
    this.#decoder?.free();
    this.#decoder = null;
    this.#text.free();
  }

  #pass(marker: string): AnswerPiece {
    switch (marker) {
      case CALL_BEGIN: {
        const piece = this.#leave("header");
        this.#decoder = new StreamDecoder(this.#tokenizer, true);
        return piece;
      }
      case CALL_ARGUMENTS:
        return this.#state === "header" ? this.#begin() : NOTHING;
      case CALL_END:
        return this.#state === "text" ? NOTHING : this.#leave("between");
      default: // a section's begin or end
        return this.#leave("text");
    }
  }

  /** Ends what is under way; a header that no arguments follow was text. */
  #leave(next: State): AnswerPiece {
    const before = this.#state;
    const rest = this.#decoder?.flush() ?? "";
    const header = this.#header + rest;
    this.#decoder?.free();
    this.#decoder = null;
    this.#header = "";
    this.#state = next;
    if (before === "arguments") return this.#argumentPiece(rest);
    // No stop string goes on behind a marker.
    if (before === "text") return { text: this.#text.end(), call: null };
    if (before !== "header") return NOTHING;
    if (next === "between") this.#state = "text";
    return { text: this.#text.pushText(header), call: null };
  }

  /** A header is complete. */
  #begin(): AnswerPiece {
    const header = (this.#header + this.#decoder!.flush()).trim();
    const name = calledName(header, this.#declared);
    if (name === "") return this.#leave("text");
    this.#header = "";
    this.#state = "arguments";
    const index = this.#calls++;
    return {
      text: "",
      call: { index, head: { id: this.#newId(header, name), name }, arguments: "" },
    };
  }

  /** The model's own id, unless another call of this answer has it. */
  #newId(header: string, name: string): string {
    let id = header;
    for (let index = this.#callIds.size; this.#callIds.has(id); index++) id = callId(name, index);
    this.#callIds.add(id);
    return id;
  }

  #argumentPiece(text: string): AnswerPiece {
    if (text === "") return NOTHING;
    return { text: "", call: { index: this.#calls - 1, head: null, arguments: text } };
  }
}
