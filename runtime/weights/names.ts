/**
 * Names of the weights inside Kedge, and how each is found in a published checkpoint.
 *
 * Keys (L = layer index from 0; [rows, columns]):
 *
 *   embed [vocab, hidden]    head [vocab, hidden]    norm [1, hidden]
 *   L.mixer_norm [1, hidden]           L.ffn_norm [1, hidden]
 *   L.kda.q L.kda.k [H dk, hidden]     L.kda.v [H dv, hidden]
 *   L.kda.q_conv .k_conv .v_conv       [channels, taps], oldest tap first
 *   L.kda.a_log [1, H]                 L.kda.dt_bias [1, H dk]
 *   L.kda.f_a [rank, hidden]           L.kda.f_b [H dk, rank]
 *   L.kda.b [H, hidden]
 *   L.kda.g_a [rank, hidden]           L.kda.g_b [H dv, rank]
 *   L.kda.o_norm [1, dv]               L.kda.o [hidden, H dv]
 *   L.mla.q [N (nope + shared), hidden]   per head: nope rows, then shared-key rows
 *   L.mla.kv_a [latent + shared, hidden]  latent rows, then the shared key's
 *   L.mla.kv_norm [1, latent]
 *   L.mla.kv_b [N (nope + value), latent] per head: key rows, then value rows
 *   L.mla.o [hidden, N value]
 *   L.dense.gate L.dense.up [width, hidden]    L.dense.down [hidden, width]
 *   L.moe.router [experts, hidden]     L.moe.router_bias [1, experts]
 *   L.moe.gate L.moe.up [experts x [width, hidden]]   L.moe.down [experts x [hidden, width]]
 *   L.shared.gate L.shared.up [shared width, hidden]  L.shared.down [hidden, shared width]
 *
 * Always handed over as f32, whatever the file holds (bf16 and f16 widen exactly): norms,
 * convolutions, a_log, dt_bias, router_bias. Every other key keeps the file's format.
 */
