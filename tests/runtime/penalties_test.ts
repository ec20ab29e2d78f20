import assert from "node:assert/strict";
import type { GenerateRequest, SamplingParameters } from "../../runtime/engine/engine.ts";
import { Penalties } from "../../runtime/engine/penalties.ts";
import { GREEDY_SAMPLING } from "../../runtime/engine/sampling.ts";
import { PENALTY_WINDOW_TOKENS } from "../../runtime/limits.ts";

function request(sampling: Partial<SamplingParameters>, promptIds: number[] = [1, 2, 2, 7]) {
  return {
    promptIds: Uint32Array.from(promptIds),
    minTokens: 0,
    grammar: null,
    sampling: { ...GREEDY_SAMPLING, ...sampling },
  } as unknown as GenerateRequest;
}

/** Edits by id, as [divide, add]. */
function editsOf(penalties: Penalties): Map<number, [number, number]> {
  const { ids, divide, add } = penalties.edits();
  assert.equal(new Set(ids).size, ids.length, "each id once");
  return new Map(Array.from(ids, (id, at) => [id, [divide[at]!, add[at]!]]));
}

Deno.test("Penalties are none where none are asked for", () => {
  assert.equal(Penalties.of(request({})), null);
});

Deno.test("Penalties: frequency counts, presence does not, and neither sees the prompt", () => {
  const penalties = Penalties.of(request({ frequencyPenalty: 0.5, presencePenalty: 0.25 }))!;
  assert.ok(penalties.changes);
  assert.equal(editsOf(penalties).size, 0);
  for (const id of [9, 9, 4, 9]) penalties.push(id);
  assert.deepEqual([...editsOf(penalties)], [[9, [1, -1.75]], [4, [1, -0.75]]]);
});

Deno.test("Penalties: repetition sees prompt and output", () => {
  const penalties = Penalties.of(request({ repetitionPenalty: 1.5 }))!;
  penalties.push(9);
  const wanted = [1, 2, 7, 9].map((id) => [id, [1.5, 0]]);
  assert.deepEqual([...editsOf(penalties)], wanted);
});

Deno.test("Penalties: a bias is added to what the others take, and alone does not change", () => {
  const logitBias = [[2, 5], [30, -100]] as const;
  const bias = Penalties.of(request({ logitBias }))!;
  assert.equal(bias.changes, false);
  bias.push(2);
  assert.deepEqual([...editsOf(bias)], [[2, [1, 5]], [30, [1, -100]]]);
  const both = Penalties.of(request({ logitBias, frequencyPenalty: 1, repetitionPenalty: 2 }))!;
  both.push(2);
  assert.deepEqual(editsOf(both).get(2), [2, 4]);
  assert.deepEqual(editsOf(both).get(30), [1, -100]);
});

Deno.test("Penalties: stop ids can't be chosen before the text is long enough", () => {
  const asked = { ...request({ logitBias: [[3, 2]] }), minTokens: 2, stopIds: [3, 5] };
  const penalties = Penalties.of(asked as GenerateRequest)!;
  assert.ok(penalties.changes);
  for (let token = 0; token < 2; token++) {
    const edits = editsOf(penalties);
    assert.ok(
      [3, 5].every((id) => edits.get(id)![1] < -1e29 && Number.isFinite(edits.get(id)![1])),
    );
    penalties.push(9);
  }
  assert.equal(penalties.changes, false);
  assert.deepEqual([...editsOf(penalties)], [[3, [1, 2]]]);
});

Deno.test("Penalties look back on a bounded window, counted exactly", () => {
  const prompt = Array.from({ length: PENALTY_WINDOW_TOKENS + 50 }, (_, at) => at);
  const penalties = Penalties.of(request({ repetitionPenalty: 2, frequencyPenalty: 1 }, prompt))!;
  assert.equal(penalties.edits().ids.length, PENALTY_WINDOW_TOKENS);
  assert.equal(editsOf(penalties).has(49), false);
  // As a plain recount says, over more tokens than the window holds.
  const tokens = [...prompt];
  const random = (at: number) => at * at % 613;
  for (let at = 0; at < 2 * PENALTY_WINDOW_TOKENS + 10; at++) {
    penalties.push(random(at));
    tokens.push(random(at));
  }
  const counts = new Map<number, number>();
  for (const id of tokens.slice(-PENALTY_WINDOW_TOKENS)) counts.set(id, (counts.get(id) ?? 0) + 1);
  const edits = editsOf(penalties);
  assert.equal(edits.size, counts.size);
  for (const [id, count] of counts) assert.deepEqual(edits.get(id), [2, -count]);
});
