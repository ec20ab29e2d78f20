/** The schemas of the API's document, by name: what routes check bodies with, and their answers. */
import { z } from "zod";
import * as answers from "./answers.ts";
import * as openai from "./answers_openai.ts";
import type { JsonObject } from "./body.ts";
import { shapeOf } from "./fields.ts";
import { countTokensBody, messagesBody } from "./messages_schema.ts";
import { ollamaChatBody, ollamaGenerateBody, ollamaShowBody } from "./ollama_schema.ts";
import { responsesBody } from "./responses_schema.ts";
import { chatBody, completionBody } from "./schema.ts";
import { detokenizeBody, templateBody, tokenizeBody } from "./tokenize.ts";

function bodies(vocabularySize: number) {
  return {
    ChatRequest: chatBody,
    CompletionRequest: completionBody(vocabularySize),
    ResponsesRequest: responsesBody,
    MessagesRequest: messagesBody,
    CountTokensRequest: countTokensBody,
    OllamaChatRequest: ollamaChatBody,
    OllamaGenerateRequest: ollamaGenerateBody,
    OllamaShowRequest: ollamaShowBody,
    TokenizeRequest: tokenizeBody,
    DetokenizeRequest: detokenizeBody(vocabularySize),
    TemplateRequest: templateBody,
  };
}

const ANSWERS = {
  Error: openai.errorAnswer,
  MessagesError: answers.messagesErrorAnswer,
  OllamaError: answers.ollamaErrorAnswer,
  ChatCompletion: openai.chatAnswer,
  ChatCompletionEvent: z.union([openai.chatChunk, openai.errorAnswer]),
  Completion: openai.completionAnswer,
  CompletionEvent: z.union([openai.completionChunk, openai.errorAnswer]),
  Response: openai.responseAnswer,
  ResponseEvent: openai.responseEvent,
  Models: openai.modelsAnswer,
  Model: openai.modelAnswer,
  Message: answers.messagesAnswer,
  MessageEvent: answers.messagesEvent,
  CountTokens: answers.countTokensAnswer,
  OllamaChat: answers.ollamaChatAnswer,
  OllamaChatLine: z.union([answers.ollamaChatAnswer, answers.ollamaErrorAnswer]),
  OllamaGenerate: answers.ollamaGenerateAnswer,
  OllamaGenerateLine: z.union([answers.ollamaGenerateAnswer, answers.ollamaErrorAnswer]),
  OllamaTags: answers.ollamaTagsAnswer,
  OllamaPs: answers.ollamaPsAnswer,
  OllamaShow: answers.ollamaShowAnswer,
  OllamaVersion: answers.ollamaVersionAnswer,
  Tokenize: answers.tokenizeAnswer,
  Detokenize: answers.detokenizeAnswer,
  Template: answers.templateAnswer,
  Props: answers.propsAnswer,
  State: answers.stateAnswer,
  Health: answers.healthAnswer,
  Unhealthy: answers.unhealthyAnswer,
};

export type BodyName = keyof ReturnType<typeof bodies>;
export type AnswerName = keyof typeof ANSWERS;

/** Where the document has a schema. */
export function referTo(name: BodyName | AnswerName): { readonly $ref: string } {
  return { $ref: uriOf(name) };
}

function uriOf(name: string): string {
  return `#/components/schemas/${name}`;
}

/** All of them as JSON schemas of the draft that OpenAPI 3.1 takes (2020-12). */
export function schemaComponents(vocabularySize: number): Record<string, JsonObject> {
  return { ...toJson(bodies(vocabularySize), "input"), ...toJson(ANSWERS, "output") };
}

function toJson(
  schemas: Readonly<Record<string, z.ZodType>>,
  io: "input" | "output",
): Record<string, JsonObject> {
  const registry = z.registry<{ readonly id: string }>();
  for (const [id, schema] of Object.entries(schemas)) registry.add(schema, { id });
  const json = z.toJSONSchema(registry, { ...optionsFor(io), uri: uriOf });
  return Object.fromEntries(
    Object.entries(json.schemas).map(([name, { $schema: _, $id: __, ...schema }]) => [
      name,
      schema as JsonObject,
    ]),
  );
}

type Options = NonNullable<Parameters<typeof z.toJSONSchema>[1]>;

function optionsFor(io: "input" | "output"): Options {
  return {
    io,
    unrepresentable: "any",
    override({ zodSchema, jsonSchema }) {
      const shape = shapeOf(zodSchema);
      if (shape === undefined) return;
      const { $schema: _, ...shown } = z.toJSONSchema(shape, optionsFor(io));
      Object.assign(jsonSchema, shown);
    },
  };
}
