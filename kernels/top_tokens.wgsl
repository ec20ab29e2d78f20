// The best 256 items of a row, in order: largest first, of equals the lower id first.
//
//   logits  f32 [row_count][width], an item's id is its place
//   maxima  u32 [row_count][subsets]: the largest key of each subset, as logit_parts.wgsl
//   best    [row_count][256] of key, id: u32; id 0xffffffff where there are fewer
//
// The 256th largest of the subsets' maxima has 256 items that are no smaller, so the best are in
// subsets that have it or more: `hits`. Their items from there on are mostly few more than 256 and
// sorted by a bitonic network (Batcher 1968). Where they are too many, the threshold is narrowed
// among them. Where more are equal to the last of the best than there is room for, those above are
// taken, and the equal ones by id. What is sorted may come in any order; the result does not vary.
//
// One workgroup: one row. Loops: (6 (subsets + 512 x 64) + width) / 256 + 910 turns.

struct Params {
  width: u32,
  subsets: u32,
}

const THREADS: u32 = 256u;
const PART: u32 = 2048u;
const PART_SUBSETS: u32 = 32u;
const SUBSET: u32 = 64u;
const HITS: u32 = 512u;
const ITEMS: u32 = 1024u;
const BEST: u32 = 256u;
const NO_ITEM: vec2<u32> = vec2<u32>(0u, 0xffffffffu);

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
@group(0) @binding(2) var<storage, read> maxima: array<u32>;
@group(0) @binding(3) var<storage, read_write> best: array<vec2<u32>>;

// Complement of the least and the greatest key of `maxima`.
var<workgroup> extremes: array<atomic<u32>, 2>;
var<workgroup> hits: array<u32, HITS>;
var<workgroup> appended: atomic<u32>;
var<workgroup> hit_count: u32;
var<workgroup> item_count: u32;
var<workgroup> items: array<vec2<u32>, ITEMS>;

fn is_better(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x > b.x || (a.x == b.x && a.y < b.y);
}

// Appends what passes to `hits` or `items`, as far as there is room; how many there are.
fn collect(kind: u32, row: u32, thread: u32, threshold: Threshold) -> u32 {
  atomicStore(&appended, 0u);
  workgroupBarrier();
  for (var start = thread; start < element_count(kind); start += BATCH * THREADS) {
    // @unroll
    for (var i = 0u; i < BATCH; i++) {
      let element = element_at(kind, row, start + i * THREADS);
      if (element.used && passes(threshold, element.key)) {
        let at = atomicAdd(&appended, 1u);
        if (kind == OF_SUBSETS) {
          hits[min(at, HITS - 1u)] = element.id;
        } else if (at < ITEMS) {
          items[at] = vec2<u32>(element.key, element.id);
        }
      }
    }
  }
  return appended_count(thread);
}

fn appended_count(thread: u32) -> u32 {
  workgroupBarrier();
  if (thread == 0u) {
    item_count = atomicLoad(&appended);
  }
  return workgroupUniformLoad(&item_count);
}

// Appends items equal to `key`, by id, 256 at a time, until there are enough.
fn collect_equal(row: u32, thread: u32, key: u32, count: u32) -> u32 {
  var total = count;
  for (var start = 0u; start < params.width && total < BEST; start += BEST) {
    let id = start + thread;
    if (thread < BEST && id < params.width && key_of(logits[row * params.width + id]) == key) {
      items[atomicAdd(&appended, 1u)] = vec2<u32>(key, id);
    }
    total = appended_count(thread);
  }
  return total;
}

fn sort_items(thread: u32, size: u32) {
  for (var run = 2u; run <= size; run *= 2u) {
    for (var step = run / 2u; step > 0u; step /= 2u) {
      for (var pair = thread; pair < size / 2u; pair += THREADS) {
        let low = 2u * (pair - pair % step) + pair % step;
        let high = low + step;
        let a = items[low];
        let b = items[high];
        if (is_better(b, a) == ((low & run) == 0u)) {
          items[low] = b;
          items[high] = a;
        }
      }
      workgroupBarrier();
    }
  }
}

@compute @workgroup_size(THREADS)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.x;
  var own = vec2<u32>(0u);
  for (var start = thread; start < params.subsets; start += BATCH * THREADS) {
    // @unroll
    for (var i = 0u; i < BATCH; i++) {
      let element = element_at(OF_SUBSETS, row, start + i * THREADS);
      own = max(own, select(vec2<u32>(0u), vec2<u32>(~element.key, element.key), element.used));
    }
  }
  atomicMax(&extremes[0], own.x);
  atomicMax(&extremes[1], own.y);
  workgroupBarrier();
  let least = ~atomicLoad(&extremes[0]);
  let greatest = atomicLoad(&extremes[1]);
  var threshold = narrow(OF_SUBSETS, row, thread, least, greatest, HITS);
  let found = collect(OF_SUBSETS, row, thread, threshold);
  if (thread == 0u) {
    hit_count = found;
  }
  workgroupBarrier();
  var count = collect(OF_ITEMS, row, thread, threshold);
  if (count > ITEMS) {
    threshold = narrow(OF_ITEMS, row, thread, threshold.key, greatest, ITEMS);
    count = collect(OF_ITEMS, row, thread, threshold);
  }
  if (threshold.strict) {
    count = collect_equal(row, thread, threshold.key, count);
  }
  let size = select(select(4u * BEST, 2u * BEST, count <= 2u * BEST), BEST, count <= BEST);
  for (var place = count + thread; place < size; place += THREADS) {
    items[place] = NO_ITEM;
  }
  workgroupBarrier();
  sort_items(thread, size);
  if (thread < BEST) {
    best[row * BEST + thread] = items[thread];
  }
}
