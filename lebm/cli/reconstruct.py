"""``lebm reconstruct RUN``: data above, reconstructions below."""

from __future__ import annotations

from lebm.cli.common import (
    add_data,
    chain_words,
    count,
    encode_noise,
    load_model,
    open_data,
    report,
    run_parser,
    say,
    spelled,
    target_file,
    tell,
)

__all__ = ["reconstruct"]


def reconstruct(argv: list[str]) -> int:
    """``lebm reconstruct RUN``"""
    parser = run_parser(
        "reconstruct", "Encode images and decode them again: data above, reconstructions below."
    )
    add_data(parser)
    parser.add_argument(
        "-n",
        type=count,
        default=32,
        help="number of images or sentences (default 32): a seeded choice, spread over the classes of images",
    )
    chosen = parser.parse_args(argv)
    target = target_file(chosen, "reconstructions", ".png")
    model = load_model(chosen)
    import torch

    from lebm.plots.grids import pair_grid, write_png

    steps = chosen.steps or model.evaluation_steps
    seed = model.seed if chosen.seed is None else chosen.seed
    images = open_data(chosen, model, None).spread(chosen.n, seed)
    decoded = [
        model.reconstruct(x.to(model.device), steps=steps, generator=encode_noise(seed, index)).cpu()
        for index, x in images.batches(chosen.batch_size)
    ]
    x, result = images.all(), torch.cat(decoded)
    if (sentences := spelled(model, x)) is not None:
        pairs = zip(sentences, spelled(model, result) or [], strict=True)
        say((f"data   {above}\nmodel  {below}" for above, below in pairs), chosen.out)
        return 0
    write_png(target, pair_grid(x, result))
    error = (result - x).square().mean().item()
    report(
        f"{len(x)} reconstructions of {images.source}",
        target,
        chosen,
        seed,
        chain_words(model, steps, "posterior"),
    )
    tell(f"lebm: mean squared error {error:.5f} a pixel, in the [-1, 1] range")
    return 0
