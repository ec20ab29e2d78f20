/** `kedge run`: one completion, printed as it is made. */
import { encodeSegments, encodeText } from "../chat/encode.ts";
import { renderChat } from "../chat/template.ts";
import { TextStream } from "../chat/text_stream.ts";
import { NOBODY } from "../http/auth.ts";
import { type AppDependencies, planGeneration } from "../http/generation.ts";
import { type ModelOptions, openModel } from "./open_model.ts";

export interface RunOptions extends ModelOptions {
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly seed?: number;
  /** Continues the prompt as it stands. */
  readonly raw?: boolean;
}

/** Standard output holds the completion and nothing else. Throws any KedgeError. */
export async function run(prompt: string, options: RunOptions): Promise<void> {
  const model = await openModel({ ...options, slots: 1 });
  try {
    await printCompletion(model, prompt, options);
  } catch (error) {
    // Whoever read standard output has seen enough: `kedge run ... | head -n 1`.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  } finally {
    await model.engine.close();
  }
}

async function printCompletion(
  model: AppDependencies,
  prompt: string,
  options: RunOptions,
): Promise<void> {
  const { engine, tokenizer } = model;
  const promptIds = options.raw === true
    ? await encodeText(tokenizer, prompt)
    : await encodeSegments(tokenizer, renderChat([{ role: "user", content: prompt }], null));
  const fields = {
    temperature: options.temperature,
    seed: options.seed,
    stop: [],
    logit_bias: [],
  };
  const request = planGeneration(
    model,
    fields,
    promptIds,
    "prompt",
    options.maxTokens ?? null,
    null,
    NOBODY,
  );
  const text = new TextStream(tokenizer, { skipSpecial: true, stops: [] });
  for await (const event of engine.generate(request)) {
    if (event.type === "token") print(text.push(event.id));
  }
  print(`${text.end()}\n`);
  text.free();
}

function print(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let sent = 0; sent < bytes.length;) sent += Deno.stdout.writeSync(bytes.subarray(sent));
}
