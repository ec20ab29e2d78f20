/** The committed packages belong to the committed sources. */
import assert from "node:assert";
import { type BuildRecord, crates, packageFolder } from "../../wasm/build.ts";
import { sectionsThatDiffer, sourceHash } from "../../wasm/package.ts";
import { wasmBindgenVersion } from "../../wasm/toolchain.ts";

for (const [crate, variants] of Object.entries(crates)) {
  Deno.test(`crate ${crate}: packages are built from its sources`, async () => {
    const sources = await sourceHash(new URL(`../../wasm/${crate}`, import.meta.url).pathname);
    const manifest = await Deno.readTextFile(
      new URL(`../../wasm/${crate}/Cargo.toml`, import.meta.url),
    );
    assert.ok(manifest.includes(`"=${wasmBindgenVersion}"`));
    for (const variant of variants) {
      const folder = packageFolder(crate, variant);
      const record: BuildRecord = JSON.parse(await Deno.readTextFile(`${folder}/build.json`));
      assert.equal(record.sources, sources, `${folder}: build it again`);
      assert.equal(record.targetFeatures, variant.targetFeatures);
      assert.equal(record.wasmBindgen, wasmBindgenVersion);
    }
  });
}

Deno.test("sectionsThatDiffer() sees code, data and missing sections, not custom ones", () => {
  const wasm = (...sections: number[][]) =>
    Uint8Array.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, ...sections.flat()]);
  const section = (id: number, ...bytes: number[]) => [id, bytes.length, ...bytes];
  const base = wasm(section(1, 5), section(10, 1, 2), section(0, 9, 9));
  assert.deepEqual(sectionsThatDiffer(base, base), []);
  const other = wasm(section(0, 7), section(1, 5), section(10, 1, 2));
  assert.deepEqual(sectionsThatDiffer(base, other), []);
  const changed = wasm(section(1, 5), section(10, 1, 3), section(11, 4));
  assert.deepEqual(sectionsThatDiffer(base, changed), ["code", "data"]);
  // A length of two bytes.
  const long = (last: number) => wasm([10, 0x80, 0x01, ...new Array(127).fill(0), last]);
  assert.deepEqual(sectionsThatDiffer(long(1), long(1)), []);
  assert.deepEqual(sectionsThatDiffer(long(1), long(2)), ["code"]);
});
