//! Mixture-of-experts bookkeeping: which experts a token goes to, and which tokens an expert gets.

pub struct Router {
    expert_count: usize,
    experts_per_token: usize,
    /// Times each expert was chosen since it was last asked for.
    uses: Vec<u32>,
}

impl Router {
    pub fn new(expert_count: usize, experts_per_token: usize) -> Result<Router, String> {
        if experts_per_token == 0 || experts_per_token > expert_count {
            return Err(format!(
                "make router: wanted 1 to {expert_count} experts a token, found {experts_per_token}"
            ));
        }
        Ok(Router { expert_count, experts_per_token, uses: vec![0; expert_count] })
    }

    /// Experts and weights, [rows, experts_per_token] each, of scores [rows, experts].
    pub fn select(
        &self,
        scores: &[f32],
        bias: &[f32],
        renormalize: bool,
        scale: f64,
    ) -> Result<(Vec<u32>, Vec<f32>), String> {
        if bias.len() != self.expert_count || !scores.len().is_multiple_of(self.expert_count) {
            return Err(format!(
                "select experts: wanted rows of {0} scores and {0} biases, found {1} and {2}",
                self.expert_count,
                scores.len(),
                bias.len()
            ));
        }
        let chosen = scores.len() / self.expert_count * self.experts_per_token;
        let (mut experts, mut weights) = (Vec::with_capacity(chosen), Vec::with_capacity(chosen));
        let mut best: Vec<(f32, u32)> = Vec::with_capacity(self.experts_per_token + 1);
        for (row, scores) in scores.chunks_exact(self.expert_count).enumerate() {
            best.clear();
            for (expert, (score, bias)) in scores.iter().zip(bias).enumerate() {
                let value = score + bias;
                if value.is_nan() {
                    return Err(format!(
                        "select experts: wanted numbers, found NaN in row {row} at expert {expert}"
                    ));
                }
                // Behind its equals: of those the lower index comes first.
                let at = best.partition_point(|(other, _)| *other >= value);
                if at < self.experts_per_token {
                    best.truncate(self.experts_per_token - 1);
                    best.insert(at, (value, expert as u32));
                }
            }
            let score = |expert: u32| scores[expert as usize] as f64;
            let sum: f64 = best.iter().map(|(_, expert)| score(*expert)).sum();
            let factor = if renormalize { scale / (sum + 1e-20) } else { scale };
            experts.extend(best.iter().map(|(_, expert)| *expert));
            weights.extend(best.iter().map(|(_, expert)| (score(*expert) * factor) as f32));
        }
        Ok((experts, weights))
    }

    /// Counting sort of choices by expert: counts [experts], offsets [experts + 1], order
    /// [choices].
    pub fn group(&mut self, experts: &[u32]) -> Result<[Vec<u32>; 3], String> {
        let mut counts = vec![0u32; self.expert_count];
        for expert in experts {
            let Some(count) = counts.get_mut(*expert as usize) else {
                let wanted = self.expert_count;
                return Err(format!(
                    "group experts: wanted indices below {wanted}, found {expert}"
                ));
            };
            *count += 1;
        }
        let mut offsets = Vec::with_capacity(self.expert_count + 1);
        offsets.push(0);
        for (count, uses) in counts.iter().zip(&mut self.uses) {
            offsets.push(offsets[offsets.len() - 1] + count);
            *uses = uses.wrapping_add(*count);
        }
        let mut next = offsets.clone();
        let mut order = vec![0; experts.len()];
        for (choice, expert) in experts.iter().enumerate() {
            let at = &mut next[*expert as usize];
            order[*at as usize] = choice as u32;
            *at += 1;
        }
        Ok([counts, offsets, order])
    }

    pub fn take_uses(&mut self) -> Vec<u32> {
        std::mem::replace(&mut self.uses, vec![0; self.expert_count])
    }
}
