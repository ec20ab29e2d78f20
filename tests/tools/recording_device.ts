/** Stands in for a device while weights load: keeps what it is given and checks the order. */

import assert from "node:assert/strict";
import type { TensorSpec, WeightFormat } from "../../runtime/model/device.ts";

const ELEMENT_BYTES: Record<WeightFormat, number> = { f32: 4, f16: 2, bf16: 2, fp8: 1 };

export interface RecordedWeight {
  readonly spec: TensorSpec;
  /** One a matrix, whole. */
  readonly matrices: readonly Uint8Array[];
  /** Bytes that arrived, by matrix. */
  readonly filled: number[];
  readonly scales: (Float32Array | null)[];
}

export class RecordingDevice {
  specs: readonly TensorSpec[] = [];
  readonly weights = new Map<string, RecordedWeight>();

  declare(specs: readonly TensorSpec[]): void {
    assert.equal(this.specs.length, 0, "declared twice");
    this.specs = specs;
    for (const spec of specs) {
      assert.ok(!this.weights.has(spec.key), `${spec.key} declared twice`);
      const bytes = spec.rows * spec.columns * ELEMENT_BYTES[spec.format];
      const each = <T>(make: () => T) => Array.from({ length: spec.matrices }, make);
      this.weights.set(spec.key, {
        spec,
        matrices: each(() => new Uint8Array(bytes)),
        filled: each(() => 0),
        scales: each(() => null),
      });
    }
  }

  write(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const { spec, matrices, filled } = this.get(key);
    const element = ELEMENT_BYTES[spec.format];
    assert.equal(byteOffset, filled[matrix], `${key} ${matrix}: pieces out of order`);
    assert.equal(bytes.length % element, 0, `${key}: a piece ends inside an element`);
    matrices[matrix]!.set(bytes, byteOffset);
    filled[matrix]! += bytes.length;
  }

  writeScales(key: string, matrix: number, scales: Float32Array): void {
    const weight = this.get(key);
    const { spec: { scale, rows, columns } } = weight;
    assert.ok(scale !== null, `${key}: scales of a tensor that isn't fp8`);
    const grid = Math.ceil(rows / scale.rowsPerScale) * Math.ceil(columns / scale.columnsPerScale);
    assert.equal(scales.length, grid);
    assert.equal(weight.scales[matrix], null, `${key} ${matrix}: scales twice`);
    weight.scales[matrix] = scales.slice();
  }

  /** Every byte and every scale arrived. */
  checkComplete(): void {
    for (const { spec, matrices, filled, scales } of this.weights.values()) {
      matrices.forEach((bytes, matrix) => {
        assert.equal(filled[matrix], bytes.length, `${spec.key} ${matrix}: bytes`);
        assert.equal(scales[matrix] !== null, spec.format === "fp8", `${spec.key}: scales`);
      });
    }
  }

  private get(key: string): RecordedWeight {
    const weight = this.weights.get(key);
    assert.ok(weight !== undefined, `${key} wasn't declared`);
    return weight;
  }
}
