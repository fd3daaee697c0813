"""What CLIP's encoders have that others have not."""

import torch

from reidexport.models.clip import AttentionPool


def test_attention_pool_is_attention_of_the_mean() -> None:
    """One head and one token at a time: what the mean of a map attends to, of the map and of itself."""
    torch.manual_seed(0)
    pool = AttentionPool(width=8, num_places=6, num_heads=2, out_channels=5).double()
    torch.nn.init.normal_(pool.pos_embed)
    image = torch.randn(1, 8, 3, 2, dtype=torch.float64)
    tokens = torch.cat((image.mean((2, 3)), image[0].flatten(1).T)) + pool.pos_embed[0]
    attended = []
    for head in (slice(0, 4), slice(4, 8)):
        query = pool.q_proj(tokens[0])[head] / 4**0.5
        shares = torch.stack([(query @ pool.k_proj(token)[head]).exp() for token in tokens])
        values = torch.stack([pool.v_proj(token)[head] for token in tokens])
        attended.append((shares[:, None] * values).sum(0) / shares.sum())
    assert torch.allclose(pool(image)[0], pool.c_proj(torch.cat(attended)), atol=1e-12)
