import { openDevice } from "../../runtime/engine/devices.ts";
import { registerGoldenTests } from "./suite.ts";

registerGoldenTests("cpu", (shape) => openDevice("cpu", shape));
