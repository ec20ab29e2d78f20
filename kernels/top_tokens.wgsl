// The best 256 of every 1,024 items of a row, in order: largest first, of equals the lower id
// first.
//
//   source  from_logits = 1: f32 [row_count][width], an item's id is its place;
//           else [row_count][width] of key, id: u32, every 256 of them in order
//   best    [row_count][ceil(width / 1,024)][256] of key, id: u32; id 0xffffffff where there are
//           fewer
//
// A key orders like its logit: the bits of a float, turned so that larger floats are larger
// integers. One workgroup sorts one part by a bitonic network (Batcher 1968), so equal input gives
// equal output. Loops: at most 55 x 2 + 8 turns.

struct Params {
  row_count: u32,
  width: u32,
  from_logits: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<u32>;
@group(0) @binding(2) var<storage, read_write> best: array<vec2<u32>>;

const THREADS: u32 = 256u;
const PART: u32 = 1024u;
const BEST: u32 = 256u;
const NO_ITEM: vec2<u32> = vec2<u32>(0u, 0xffffffffu);

var<workgroup> items: array<vec2<u32>, 1024>;

fn key_of(word: u32) -> u32 {
  let bits = select(word, 0u, word == 0x80000000u); // -0 equals 0
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn is_better(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.x > b.x || (a.x == b.x && a.y < b.y);
}

fn item_at(row: u32, place: u32) -> vec2<u32> {
  if (place >= params.width) {
    return NO_ITEM;
  }
  let at = row * params.width + place;
  if (params.from_logits == 1u) {
    return vec2<u32>(key_of(source[at]), place);
  }
  return vec2<u32>(source[2u * at], source[2u * at + 1u]);
}

@compute @workgroup_size(256)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) thread: u32,
) {
  let row = group.y;
  for (var list = 0u; list < PART / BEST; list++) {
    // What is in order already: the network wants every second run the other way round.
    let is_turned = params.from_logits == 0u && list % 2u == 1u;
    let place = list * BEST + select(thread, BEST - 1u - thread, is_turned);
    items[place] = item_at(row, group.x * PART + list * BEST + thread);
  }
  workgroupBarrier();
  let first_run = select(2u * BEST, 2u, params.from_logits == 1u);
  for (var run = first_run; run <= PART; run *= 2u) {
    for (var step = run / 2u; step > 0u; step /= 2u) {
      for (var pair = thread; pair < PART / 2u; pair += THREADS) {
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
  best[(row * groups.x + group.x) * BEST + thread] = items[thread];
}
