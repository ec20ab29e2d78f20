/**
 * From a shader's text to a pipeline.
 *
 * Binding 0 of group 0 is the uniform `Params` with a dynamic offset; bindings 1.. are storage
 * buffers in the order of `bindings`. The layout is explicit and made from the same list as the
 * bind
 * groups, so they can't disagree.
 */
import type { Gpu } from "./gpu.ts";
import { literalConstants, setConstants, unroll } from "./unroll.ts";

export type ParamTypes = Record<string, "u32" | "f32">;
export type Access = "read" | "write";

/** A piece of WGSL put before a shader: element types and shared helpers. */
export interface Prelude {
  /** File name, for messages: "lib/weights16_bf16.wgsl". */
  readonly name: string;
  readonly source: string;
}

export interface KernelDefinition<P extends ParamTypes> {
  /** Base name of the .wgsl file. */
  readonly name: string;
  readonly source: string;
  readonly preludes?: readonly Prelude[];
  readonly bindings: readonly Access[];
  /** Fields of `struct Params`, in order. */
  readonly params: P;
}

/** WebGPU promises 8 storage buffers a stage; asking for more would exclude adapters. */
const STORAGE_BINDING_LIMIT = 8;

/** A compiled kernel, ready to be recorded. */
export interface Pipeline<P extends ParamTypes> {
  readonly name: string;
  readonly id: number;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  readonly bindings: readonly Access[];
  readonly params: P;
}

export interface Kernel<P extends ParamTypes> extends KernelDefinition<P> {
  /**
   * Builds the pipeline once per device, constants and preludes. `constants` set `override`s by
   * name; `preludes` replace the definition's; `literals` set `const`s of the text, which bound
   * unrolled loops. Throws an Error with file:line:column.
   */
  compile(
    gpu: Gpu,
    constants?: Readonly<Record<string, number>>,
    preludes?: readonly Prelude[],
    literals?: Readonly<Record<string, number>>,
  ): Promise<Pipeline<P>>;
}

let pipelineCount = 0;

export function defineKernel<P extends ParamTypes>(definition: KernelDefinition<P>): Kernel<P> {
  if (definition.bindings.length > STORAGE_BINDING_LIMIT) {
    throw new Error(
      `define kernel "${definition.name}": wanted at most ${STORAGE_BINDING_LIMIT} storage ` +
        `bindings, found ${definition.bindings.length}`,
    );
  }
  const compiled = new WeakMap<Gpu, Map<string, Promise<Pipeline<P>>>>();
  return {
    ...definition,
    compile(gpu, constants = {}, preludes = definition.preludes ?? [], literals = {}) {
      const perGpu = compiled.get(gpu) ?? new Map<string, Promise<Pipeline<P>>>();
      compiled.set(gpu, perGpu);
      const key = JSON.stringify([
        Object.entries(constants).sort(),
        Object.entries(literals).sort(),
        preludes.map((prelude) => prelude.name),
      ]);
      const pipeline = perGpu.get(key) ?? build(gpu, definition, constants, preludes, literals);
      perGpu.set(key, pipeline);
      return pipeline;
    },
  };
}

async function build<P extends ParamTypes>(
  gpu: Gpu,
  definition: KernelDefinition<P>,
  constants: Readonly<Record<string, number>>,
  preludes: readonly Prelude[],
  literals: Readonly<Record<string, number>>,
): Promise<Pipeline<P>> {
  const { device } = gpu;
  const { name, bindings, params } = definition;
  const began = performance.now();
  const pieces = expandPieces(
    [...preludes, { name: `${name}.wgsl`, source: definition.source }],
    literals,
    constants,
  );
  const code = pieces.map(({ source }) => source).join("\n");
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: name, code });
  const shaderMs = performance.now() - began;
  const moduleError = await device.popErrorScope();
  if (moduleError !== null) {
    const info = await module.getCompilationInfo();
    const lines = info.messages.map((message) =>
      `${locate(pieces, message.lineNum)}:${message.linePos}: ${message.message}`
    );
    throw new Error(`compile ${lines.join("\n") || `${name}.wgsl: ${moduleError.message}`}`);
  }
  const layout = device.createBindGroupLayout({ label: name, entries: layoutEntries(bindings) });
  device.pushErrorScope("validation");
  const checked = performance.now();
  const pipeline = device.createComputePipeline({
    label: name,
    layout: device.createPipelineLayout({ label: name, bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: "main", constants: { ...constants } },
  });
  const pipelineMs = performance.now() - checked;
  const pipelineError = await device.popErrorScope();
  if (pipelineError !== null) {
    throw new Error(`build the pipeline of ${name}.wgsl: ${pipelineError.message}`);
  }
  gpu.countKernel(shaderMs, pipelineMs);
  return { name, id: pipelineCount++, pipeline, layout, bindings, params };
}

function layoutEntries(bindings: readonly Access[]): GPUBindGroupLayoutEntry[] {
  return [
    {
      binding: 0,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: "uniform", hasDynamicOffset: true },
    },
    ...bindings.map((access, index): GPUBindGroupLayoutEntry => ({
      binding: index + 1,
      visibility: GPUShaderStage.COMPUTE,
      buffer: { type: access === "read" ? "read-only-storage" : "storage" },
    })),
  ];
}

/** The pieces of a shader with their constants set and their marked loops expanded. */
function expandPieces(
  pieces: readonly Prelude[],
  literals: Readonly<Record<string, number>>,
  overrides: Readonly<Record<string, number>>,
): Prelude[] {
  const sources = setConstants(pieces.map(({ source }) => source), literals);
  const constants = new Map([
    ...Object.entries(overrides),
    ...sources.flatMap((source) => [...literalConstants(source)]),
  ]);
  return pieces.map(({ name }, index) => ({
    name,
    source: unroll(sources[index]!, name, constants),
  }));
}

/** "file:line" of a line of the joined text. Unrolled pieces keep only their first lines exact. */
function locate(pieces: readonly Prelude[], joinedLine: number): string {
  let line = joinedLine;
  for (const piece of pieces) {
    const count = piece.source.split("\n").length;
    if (line <= count) return `${piece.name}:${line}`;
    line -= count;
  }
  return `end:${line}`;
}
