import { openDevice } from "../../runtime/engine/devices.ts";
import { registerInvarianceTests } from "./invariance_suite.ts";
import { registerMaskTests } from "./masks_suite.ts";
import { registerGoldenTests } from "./suite.ts";

registerGoldenTests("cpu", (shape) => openDevice("cpu", shape));
registerInvarianceTests("cpu", (shape) => openDevice("cpu", shape));
registerMaskTests("cpu", (shape) => openDevice("cpu", shape));
