import { deepEqual, equal, ok } from "node:assert/strict";
import { AnswerStream } from "../../runtime/chat/answer_stream.ts";
import {
  CALL_ARGUMENTS,
  CALL_BEGIN,
  CALL_END,
  calledName,
  CALLS_BEGIN,
  CALLS_END,
} from "../../runtime/chat/tool_calls.ts";
import { tinyTokenizer } from "../tools/tiny_text.ts";

const MARKERS = [CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_ARGUMENTS, CALL_END];

/** Ids of a text in which markers are markers; `cuts` says where else tokens end. */
function idsOf(text: string, cuts: (part: string) => string[] = (part) => [part]): number[] {
  const ids: number[] = [];
  const parts = MARKERS.reduce(
    (list, marker) =>
      list.flatMap((part) =>
        MARKERS.includes(part)
          ? [part]
          : part.split(marker).flatMap((p, i) => i ? [marker, p] : [p])
      ),
    [text],
  );
  for (const part of parts) {
    if (MARKERS.includes(part)) ids.push(tinyTokenizer.specialId(part)!);
    else for (const piece of cuts(part)) ids.push(...tinyTokenizer.encode(piece));
  }
  return ids;
}

interface Read {
  text: string;
  calls: { id: string; name: string; arguments: string }[];
  stopped: string | null;
}

function read(ids: readonly number[], stops: string[] = [], tools: string[] | null = ["f"]): Read {
  const stream = new AnswerStream(tinyTokenizer, { stops, tools });
  const result: Read = { text: "", calls: [], stopped: null };
  const add = ({ text, call }: ReturnType<AnswerStream["push"]>) => {
    result.text += text;
    if (call === null) return;
    if (call.head !== null) result.calls.push({ ...call.head, arguments: "" });
    equal(call.index, result.calls.length - 1);
    result.calls[call.index]!.arguments += call.arguments;
  };
  for (const id of ids) {
    add(stream.push(id));
    if (stream.stopped !== null) break;
  }
  add(stream.end());
  equal(stream.calls, result.calls.length);
  result.stopped = stream.stopped;
  stream.free();
  return result;
}

const call = (header: string, args: string) =>
  `${CALL_BEGIN}${header}${CALL_ARGUMENTS}${args}${CALL_END}`;
const section = (...calls: string[]) => CALLS_BEGIN + calls.join("") + CALLS_END;

Deno.test("answer stream: text, calls, and their arguments to the letter", () => {
  const args = '{"city": "Zürich 🙂",\n "n": 1}';
  const text = "Let me see." + section(call("functions.f:0", args), call("functions.g:1", "{}"));
  deepEqual(read(idsOf(text)), {
    text: "Let me see.",
    calls: [
      { id: "functions.f:0", name: "f", arguments: args },
      { id: "functions.g:1", name: "g", arguments: "{}" },
    ],
    stopped: null,
  });
});

Deno.test("answer stream: without tools markers are text", () => {
  const text = "a" + section(call("functions.f:0", "{}"));
  deepEqual(read(idsOf(text), [], null), { text, calls: [], stopped: null });
});

Deno.test("answer stream: text that looks like a marker is text", () => {
  const ids = Array.from(tinyTokenizer.encode(CALL_BEGIN + "f" + CALL_ARGUMENTS));
  deepEqual(read(ids), { text: CALL_BEGIN + "f" + CALL_ARGUMENTS, calls: [], stopped: null });
});

Deno.test("answer stream: malformed calls become text, truncated ones stay calls", () => {
  const cases: [string, string, [string, string][]][] = [
    [`${CALLS_BEGIN}hello${CALLS_END}`, "hello", []],
    [`${CALL_BEGIN}functions.f:0${CALL_END}!`, "functions.f:0!", []],
    [`${CALL_BEGIN}functions.f:0`, "functions.f:0", []],
    [`${CALL_BEGIN}  ${CALL_ARGUMENTS}{}${CALL_END}`, "  {}", []],
    [`${CALL_ARGUMENTS}x${CALL_END}y`, "xy", []],
    [`${CALLS_BEGIN}${CALL_BEGIN} f ${CALL_ARGUMENTS}{"a`, "", [["f", '{"a']]],
    [`${CALL_BEGIN}f${CALL_ARGUMENTS}1${CALL_BEGIN}g${CALL_ARGUMENTS}2`, "", [["f", "1"], [
      "g",
      "2",
    ]]],
    [`${section(call("f", "1") + "between" + call("f", "2"))}after`, "after", [
      ["f", "1"],
      ["f", "2"],
    ]],
    [`${CALL_BEGIN}${"x".repeat(2000)}${CALL_ARGUMENTS}{}`, "x".repeat(2000) + "{}", []],
  ];
  for (const [text, wanted, calls] of cases) {
    const found = read(idsOf(text));
    equal(found.text, wanted, text.slice(0, 80));
    deepEqual(found.calls.map(({ name, arguments: args }) => [name, args]), calls);
    equal(new Set(found.calls.map(({ id }) => id)).size, calls.length);
  }
});

Deno.test("answer stream: stop strings end text alone, and don't reach over a call", () => {
  const calls = section(call("f", '{"a": "STOP"}'));
  deepEqual(read(idsOf("a STOP b"), ["STOP"]), { text: "a ", calls: [], stopped: "STOP" });
  const found = read(idsOf(`x ST${calls}OP y`), ["STOP"]);
  deepEqual([found.text, found.stopped, found.calls.length], ["x STOP y", null, 1]);
  equal(found.calls[0]!.arguments, '{"a": "STOP"}');
});

Deno.test("answer stream: a call's name is found in what models write", () => {
  const declared = new Set(["f", "get_time", "get", "a.b"]);
  const cases = {
    "functions.get_time:0": "get_time",
    "get_time:12": "get_time",
    "get_time": "get_time",
    "functions.a.b:3": "a.b",
    "tools.get_time:0": "get_time",
    "functionsget_time5": "get_time",
    "functions.other:0": "other",
    "": "",
    ":0": "",
  };
  for (const [header, name] of Object.entries(cases)) equal(calledName(header, declared), name);
});

/** Mulberry32. */
function randomFrom(seed: number) {
  return (below: number) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let value = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    value = (value + Math.imul(value ^ (value >>> 7), 61 | value)) ^ value;
    return Math.floor(((value ^ (value >>> 14)) >>> 0) / 2 ** 32 * below);
  };
}

Deno.test("answer stream: 1,000 random outputs read the same wherever their tokens end", () => {
  const random = randomFrom(7);
  const words = ["f", "functions.f:0", "{", '"a": "é🙂"', "}", " ", "STO", "P", "\n", "世界"];
  for (let round = 0; round < 1_000; round++) {
    const parts = Array.from(
      { length: random(24) },
      () => random(2) === 0 ? MARKERS[random(MARKERS.length)]! : words[random(words.length)]!,
    );
    const text = parts.join("");
    const whole = read(idsOf(text), ["STOP"]);
    for (const size of [1, 2, 3]) {
      const cut = read(
        idsOf(text, (part) => {
          const characters = Array.from(part);
          return characters.flatMap((_, at) =>
            at % size === 0 ? [characters.slice(at, at + size).join("")] : []
          );
        }),
        ["STOP"],
      );
      deepEqual(cut, whole, JSON.stringify(text));
    }
  }
});

Deno.test("answer stream: a megabyte of adversarial tool text takes below 200 ms", () => {
  const id = (marker: string) => tinyTokenizer.specialId(marker)!;
  const [brace] = tinyTokenizer.encode("{");
  const long = Array.from(tinyTokenizer.encode("functions.f:0 {".repeat(70_000)));
  const outputs = {
    "begins only": Array(50_000).fill(id(CALL_BEGIN)),
    "one endless header": [id(CALL_BEGIN), ...long],
    "one endless argument": [id(CALL_BEGIN), brace!, id(CALL_ARGUMENTS), ...long],
    "empty calls": Array(20_000).fill([id(CALL_BEGIN), brace!, id(CALL_ARGUMENTS), id(CALL_END)])
      .flat(),
    "every marker in turn": Array(10_000).fill(MARKERS.map(id)).flat(),
  };
  const timed = (ids: readonly number[]) => {
    const stream = new AnswerStream(tinyTokenizer, { stops: [], tools: ["f"] });
    const began = performance.now();
    for (const each of ids) stream.push(each);
    stream.end();
    const spent = performance.now() - began;
    stream.free();
    return spent;
  };
  for (const [name, ids] of Object.entries(outputs)) {
    // The first runs compile the reader.
    const spent = Math.min(timed(ids), timed(ids), timed(ids));
    ok(spent < 200, `${name}: ${spent.toFixed(0)} ms for ${ids.length} tokens`);
  }
});
