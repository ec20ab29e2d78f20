/** The vendors' own clients against the embedded model: a tool is called and its result told. */
import { deepEqual, equal, match } from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import { Ollama } from "ollama";
import OpenAI from "openai";
import { startServer } from "./running.ts";

const model = "kedge-tiny";
const QUESTION = { role: "user" as const, content: "What is the weather in Oslo?" };
const RESULT = '{"temperature": 4, "condition": "rainy"}';
const ANSWER = /4 degrees and rainy in Oslo/;
const parameters = {
  type: "object" as const,
  properties: { city: { type: "string", description: "name of the city" } },
  required: ["city"],
};
const description = "Get the current weather for a city";
const name = "get_weather";

async function askOpenAI(url: string): Promise<void> {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const cities: string[] = [];
  const runner = client.chat.completions.runTools({
    model,
    temperature: 0,
    stream: true,
    messages: [QUESTION],
    tools: [{
      type: "function",
      function: {
        name,
        description,
        parameters,
        parse: JSON.parse,
        function: ({ city }: { city: string }) => {
          cities.push(city);
          return RESULT;
        },
      },
    }],
  });
  match((await runner.finalContent())!, ANSWER);
  deepEqual(cities, ["Oslo"]);
}

async function askResponses(url: string): Promise<void> {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const tools = [{ type: "function" as const, name, description, parameters, strict: false }];
  const request = { model, temperature: 0, max_output_tokens: 200, tools };
  const first = await client.responses.stream({ ...request, input: [QUESTION] }).finalResponse();
  const calls = first.output.flatMap((item) => item.type === "function_call" ? [item] : []);
  deepEqual(calls.map((item) => [item.name, JSON.parse(item.arguments)]), [
    [name, { city: "Oslo" }],
  ]);
  const output = {
    type: "function_call_output" as const,
    call_id: calls[0]!.call_id,
    output: RESULT,
  };
  const second = await client.responses.create({
    ...request,
    input: [QUESTION, ...calls, output],
  });
  match(second.output_text, ANSWER);
  const form = await client.responses.parse({
    model,
    max_output_tokens: 200,
    input: "Tell me a story",
    text: { format: { type: "json_schema", name: "person", schema: PERSON } },
  });
  checkPerson(form.output_text);
}

async function askAnthropic(baseURL: string): Promise<void> {
  const client = new Anthropic({ baseURL, apiKey: "none", maxRetries: 0 });
  const request = {
    model,
    temperature: 0,
    max_tokens: 100,
    tools: [{ name, description, input_schema: parameters }],
  };
  const first = await client.messages.stream({ ...request, messages: [QUESTION] }).finalMessage();
  equal(first.stop_reason, "tool_use");
  const [use] = first.content.filter((block) => block.type === "tool_use");
  deepEqual([use!.name, use!.input], [name, { city: "Oslo" }]);
  const second = await client.messages.create({
    ...request,
    messages: [
      QUESTION,
      { role: "assistant", content: first.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: use!.id, content: RESULT }] },
    ],
  });
  const [block] = second.content;
  match(block?.type === "text" ? block.text : "", ANSWER);
}

async function askOllama(host: string): Promise<void> {
  const client = new Ollama({ host });
  const request = {
    model,
    options: { temperature: 0 },
    tools: [{ type: "function", function: { name, description, parameters } }],
  };
  const first = await client.chat({ ...request, messages: [QUESTION] });
  deepEqual(first.message.tool_calls, [{ function: { name, arguments: { city: "Oslo" } } }]);
  const result = { role: "tool", content: RESULT, tool_name: name };
  const second = await client.chat({ ...request, messages: [QUESTION, first.message, result] });
  match(second.message.content, ANSWER);
}

const PERSON = {
  type: "object" as const,
  properties: { name: { type: "string", maxLength: 20 }, age: { type: "integer", maximum: 99 } },
  required: ["name", "age"],
  additionalProperties: false,
};

function checkPerson(text: string): void {
  const { name, age } = JSON.parse(text);
  deepEqual([typeof name, Number.isInteger(age) && age <= 99], ["string", true]);
}

/** Each client's way to ask for a form, of a model that would not have given it. */
async function askForForms(url: string): Promise<void> {
  const messages = [{ role: "user" as const, content: "Tell me a story" }];
  const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const parsed = await openai.chat.completions.parse({
    model,
    messages,
    max_tokens: 200,
    response_format: { type: "json_schema", json_schema: { name: "person", schema: PERSON } },
  });
  checkPerson(parsed.choices[0]!.message.content!);
  const forced = await openai.chat.completions.create({
    model,
    messages,
    max_tokens: 200,
    tool_choice: { type: "function", function: { name: "save" } },
    parallel_tool_calls: false,
    tools: [{ type: "function", function: { name: "save", parameters: PERSON, strict: true } }],
  });
  const [call] = forced.choices[0]!.message.tool_calls!;
  equal(forced.choices[0]!.finish_reason, "tool_calls");
  checkPerson(call!.type === "function" ? call!.function.arguments : "");
  const anthropic = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
  const used = await anthropic.messages.create({
    model,
    messages,
    max_tokens: 200,
    tool_choice: { type: "any", disable_parallel_tool_use: true },
    tools: [{ name: "save", input_schema: PERSON }],
  });
  equal(used.stop_reason, "tool_use");
  const [use] = used.content;
  checkPerson(JSON.stringify(use?.type === "tool_use" ? use.input : null));
  const ollama = new Ollama({ host: url });
  const chat = await ollama.chat({ model, messages, format: PERSON });
  checkPerson(chat.message.content);
}

Deno.test({
  name: "kedge-tiny: OpenAI's, Anthropic's and Ollama's clients call tools and get forms",
  sanitizeResources: false,
  sanitizeOps: false,
  fn: async () => {
    const server = await startServer({ device: "cpu" });
    try {
      await askOpenAI(server.url);
      await askResponses(server.url);
      await askAnthropic(server.url);
      await askOllama(server.url);
      await askForForms(server.url);
    } finally {
      await server.stop();
    }
  },
});
