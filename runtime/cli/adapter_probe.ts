/** Run as a program of its own: prints the WebGPU adapter found, as JSON, or null. */
import { findAdapter } from "../../kernels/gpu/gpu.ts";

console.log(JSON.stringify(await findAdapter()));
