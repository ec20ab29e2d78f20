import { openDevice } from "../../runtime/engine/devices.ts";
import { registerGoldenTests } from "./suite.ts";

registerGoldenTests("webgpu", (shape) => openDevice("webgpu", shape));
