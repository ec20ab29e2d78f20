import { openDevice } from "../../runtime/engine/devices.ts";
import { registerInvarianceTests } from "./invariance_suite.ts";
import { registerMaskTests } from "./masks_suite.ts";
import { registerGoldenTests } from "./suite.ts";

registerGoldenTests("webgpu", (shape) => openDevice("webgpu", shape));
registerInvarianceTests("webgpu", (shape) => openDevice("webgpu", shape));
registerMaskTests("webgpu", (shape) => openDevice("webgpu", shape));
