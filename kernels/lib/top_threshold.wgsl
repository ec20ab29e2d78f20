// The key from which on a row's best 256 items, or subsets of its items, lie.
//
// The kernel declares params (width, subsets), logits, maxima, hits and hit_count, THREADS and
// PART_SUBSETS, and has lib/logit_key.wgsl before it.

const BINS: u32 = 1024u;
const BIN_BITS: u32 = 10u;
const WANTED: u32 = 256u;
// Loads that a thread has under way.
const BATCH: u32 = 4u;
// What is looked at: all subsets, or the items of those in `hits`.
const OF_SUBSETS: u32 = 0u;
const OF_ITEMS: u32 = 1u;

var<workgroup> bins: array<atomic<u32>, BINS>;
var<workgroup> bin_sums: array<u32, 32>;
// The chosen bin, and how many have its key or more.
var<workgroup> chosen: vec2<u32>;

struct Element {
  used: bool,
  key: u32,
  // Of a subset its index.
  id: u32,
}

// Keys from `key` on, or where `strict` those above it.
struct Threshold {
  key: u32,
  strict: bool,
}

fn passes(threshold: Threshold, key: u32) -> bool {
  return key > threshold.key || (key == threshold.key && !threshold.strict);
}

// Item `index` of a subset: see logit_parts.wgsl.
fn item_id(subset: u32, index: u32) -> u32 {
  return subset / PART_SUBSETS * PART + index / 8u * 256u + subset % PART_SUBSETS * 8u + index % 8u;
}

fn element_count(kind: u32) -> u32 {
  return select(params.subsets, hit_count * SUBSET, kind == OF_ITEMS);
}

fn element_at(kind: u32, row: u32, index: u32) -> Element {
  var element = Element(index < element_count(kind), 0u, index);
  if (kind == OF_SUBSETS) {
    element.used = element.used && item_id(index, 0u) < params.width;
    if (element.used) {
      element.key = maxima[row * params.subsets + index];
    }
    return element;
  }
  if (element.used) {
    element.id = item_id(hits[index / SUBSET], index % SUBSET);
    element.used = element.id < params.width;
  }
  if (element.used) {
    element.key = key_of(logits[row * params.width + element.id]);
  }
  return element;
}

// bins[b] = elements with key (key - low) >> shift = b, the last bin with all above.
fn fill_bins(kind: u32, row: u32, thread: u32, low: u32, shift: u32) {
  for (var bin = thread; bin < BINS; bin += THREADS) {
    atomicStore(&bins[bin], 0u);
  }
  workgroupBarrier();
  for (var start = thread; start < element_count(kind); start += BATCH * THREADS) {
    // @unroll
    for (var i = 0u; i < BATCH; i++) {
      let element = element_at(kind, row, start + i * THREADS);
      if (element.used && element.key >= low) {
        atomicAdd(&bins[min((element.key - low) >> shift, BINS - 1u)], 1u);
      }
    }
  }
  workgroupBarrier();
}

// The last bin that has 256 with those above it, else the first.
fn choose_bin(thread: u32) -> vec2<u32> {
  if (thread < 32u) {
    var sum = 0u;
    for (var i = 0u; i < 32u; i++) {
      sum += atomicLoad(&bins[32u * thread + i]);
    }
    bin_sums[thread] = sum;
  }
  workgroupBarrier();
  if (thread == 0u) {
    var count = 0u;
    var part = 31u;
    while (part > 0u && count + bin_sums[part] < WANTED) {
      count += bin_sums[part];
      part--;
    }
    var bin = 32u * part + 31u;
    count += atomicLoad(&bins[bin]);
    while (bin > 32u * part && count < WANTED) {
      bin--;
      count += atomicLoad(&bins[bin]);
    }
    chosen = vec2<u32>(bin, count);
  }
  return workgroupUniformLoad(&chosen);
}

// A threshold that `most` elements pass at most, of those from `least` to `greatest`: not strict,
// and then 256 pass or all; or, where too many are equal, strict: fewer than 256 pass, and with the
// equal ones there are enough.
fn narrow(kind: u32, row: u32, thread: u32, least: u32, greatest: u32, most: u32) -> Threshold {
  var low = least;
  let bits = 32u - countLeadingZeros(greatest - least);
  var shift = max(bits, BIN_BITS) - BIN_BITS;
  loop {
    fill_bins(kind, row, thread, low, shift);
    let found = choose_bin(thread);
    if (found.y < WANTED) {
      return Threshold(0u, false); // Too few: all that they hold.
    }
    low += found.x << shift;
    if (found.y <= most) {
      return Threshold(low, false);
    }
    if (shift == 0u) {
      break;
    }
    shift = max(shift, BIN_BITS) - BIN_BITS;
  }
  return Threshold(low, true);
}
