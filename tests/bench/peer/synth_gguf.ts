/**
 * Writes a GGUF of a shape with made-up weights (synth.ts says which), at the disk's pace:
 *
 *     ./kedge deno run -A tests/bench/peer/synth_gguf.ts --out FILE \
 *       [--config PATH/config.json] [--quant Q4_0] [--seed 1] [--skew 0.5]
 *
 * Without --config it has the shape of Kimi-Linear-48B-A3B.
 */
import { parseArgs } from "node:util";
import { parseModelConfig } from "../../../runtime/model/config.ts";
import { SYNTH_SKEW_DEFAULT } from "../../../runtime/limits.ts";
import { oneOf } from "./options.ts";
import { QUANTISATIONS } from "./layout.ts";
import { writeSyntheticGguf } from "./synth.ts";

const { values } = parseArgs({
  options: {
    out: { type: "string" },
    config: { type: "string" },
    quant: { type: "string", default: "Q4_0" },
    seed: { type: "string", default: "1" },
    skew: { type: "string", default: `${SYNTH_SKEW_DEFAULT}` },
  },
});
if (values.out === undefined) throw new Error("write a GGUF: wanted --out FILE, found none");
const url = new URL("../../../models/kimi-linear-48b/config.json", import.meta.url);
const json = JSON.parse(Deno.readTextFileSync(values.config ?? url));
const began = performance.now();
const bytes = writeSyntheticGguf(parseModelConfig(json, "config.json"), "synthetic", values.out, {
  quantisation: oneOf("--quant", values.quant, QUANTISATIONS),
  seed: Number(values.seed),
  skew: Number(values.skew),
});
const seconds = (performance.now() - began) / 1000;
const rate = (bytes / 1e9 / seconds).toFixed(2);
console.log(
  `${values.out}: ${(bytes / 1e9).toFixed(2)} GB in ${seconds.toFixed(1)} s, ${rate} GB/s`,
);
