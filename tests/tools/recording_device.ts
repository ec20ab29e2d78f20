/** Stands in for a device while weights load: keeps what it is given and checks the order. */

import assert from "node:assert/strict";
import type { TensorSpec, WeightFormat } from "../../runtime/model/device.ts";

const ELEMENT_BYTES: Record<WeightFormat, number> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  fp8: 1,
  q8: 1,
  q4: 0.5,
};

export interface RecordedWeight {
  readonly spec: TensorSpec;
  /** One a matrix, whole. */
  readonly matrices: readonly Uint8Array[];
  /** Bytes that arrived, by matrix. */
  readonly filled: number[];
  readonly scales: (Float32Array | null)[];
  /** f16 bits [rows][groups, an even count] of q8 and q4, by matrix. */
  readonly groupScales: readonly Uint8Array[];
  readonly filledScales: number[];
}

export class RecordingDevice {
  specs: readonly TensorSpec[] = [];
  readonly weights = new Map<string, RecordedWeight>();

  declare(specs: readonly TensorSpec[]): void {
    assert.equal(this.specs.length, 0, "declared twice");
    this.specs = specs;
    for (const spec of specs) {
      assert.ok(!this.weights.has(spec.key), `${spec.key} declared twice`);
      const grouped = spec.format === "q8" || spec.format === "q4";
      const groups = Math.ceil(spec.columns / 32);
      const columns = grouped ? 32 * groups : spec.columns;
      const bytes = spec.rows * columns * ELEMENT_BYTES[spec.format];
      const scaleBytes = grouped ? 4 * spec.rows * Math.ceil(groups / 2) : 0;
      const each = <T>(make: () => T) => Array.from({ length: spec.matrices }, make);
      this.weights.set(spec.key, {
        spec,
        matrices: each(() => new Uint8Array(bytes)),
        filled: each(() => 0),
        scales: each(() => null),
        groupScales: each(() => new Uint8Array(scaleBytes)),
        filledScales: each(() => 0),
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

  writeGroupScales(key: string, matrix: number, byteOffset: number, bytes: Uint8Array): void {
    const { groupScales, filledScales } = this.get(key);
    assert.equal(byteOffset, filledScales[matrix], `${key} ${matrix}: scales out of order`);
    groupScales[matrix]!.set(bytes, byteOffset);
    filledScales[matrix]! += bytes.length;
  }

  /** Every byte and every scale arrived. */
  checkComplete(): void {
    for (const weight of this.weights.values()) {
      const { spec, matrices, filled, scales, groupScales, filledScales } = weight;
      matrices.forEach((bytes, matrix) => {
        assert.equal(filled[matrix], bytes.length, `${spec.key} ${matrix}: bytes`);
        assert.equal(scales[matrix] !== null, spec.format === "fp8", `${spec.key}: scales`);
        assert.equal(
          filledScales[matrix],
          groupScales[matrix]!.length,
          `${spec.key}: group scales`,
        );
      });
    }
  }

  private get(key: string): RecordedWeight {
    const weight = this.weights.get(key);
    assert.ok(weight !== undefined, `${key} wasn't declared`);
    return weight;
  }
}
