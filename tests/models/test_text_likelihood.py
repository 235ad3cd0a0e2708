"""The likelihood of sentences against slow loops, counting, and conjugate truth."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from lebm.estimators import LatentMLE
from lebm.models import (
    CategoricalLikelihood,
    GaussianLikelihood,
    IdentityGenerator,
    Likelihood,
    RecurrentGenerator,
    SentenceEncoder,
    StandardNormal,
    TransformerGenerator,
    Vocabulary,
)
from lebm.models.sequence_generators import NEVER_WRITTEN, SequenceGenerator
from lebm.models.text_likelihood import END, PAD, START, UNKNOWN
from lebm.samplers import Langevin, Noise, log_density_gradient

SIZE, LATENT, LONGEST = 9, 3, 6


def generators() -> list[SequenceGenerator]:
    torch.manual_seed(0)
    return [
        RecurrentGenerator(LATENT, SIZE, LONGEST, 4, 5, "lstm").double(),
        RecurrentGenerator(LATENT, SIZE, LONGEST, 4, 5, "gru").double(),
        TransformerGenerator(LATENT, SIZE, LONGEST, 8, 2, 2).double(),
    ]


EACH = pytest.mark.parametrize("generator", generators(), ids=["lstm", "gru", "transformer"])


def sentences() -> Tensor:
    """One that ends early, one that was cut, one of a single word."""
    return torch.tensor([[4, 5, END, 0, 0, 0], [7, 4, 4, 8, UNKNOWN, 6], [END, 0, 0, 0, 0, 0]])


def latents(n: int = 3) -> Tensor:
    return torch.randn(n, LATENT, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def slow_log_prob(generator: SequenceGenerator, sentence: list[int], z: Tensor) -> float:
    """One word after the other through ``step``, one log-softmax a word."""
    total, previous, state = 0.0, START, None
    for word in sentence:
        if word == PAD:
            break
        features, state = generator.step(z.unsqueeze(0), torch.tensor([previous]), state)
        scores = generator.output(features)[0].tolist()
        largest = max(scores)
        total += (
            scores[word - NEVER_WRITTEN]
            - largest
            - math.log(sum(math.exp(score - largest) for score in scores))
        )
        previous = word
    return total


@EACH
def test_log_prob_is_that_of_a_slow_loop(generator: SequenceGenerator) -> None:
    x, z = sentences(), latents()
    found = CategoricalLikelihood(generator).log_prob(x, z)
    expected = [slow_log_prob(generator, row, latent) for row, latent in zip(x.tolist(), z, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


@EACH
def test_padding_and_neighbours_never_leak(generator: SequenceGenerator) -> None:
    likelihood, x, z = CategoricalLikelihood(generator), sentences(), latents()
    together = likelihood.log_prob(x, z)
    for row in range(3):
        length = int((x[row] != PAD).sum())
        alone = likelihood.log_prob(x[row : row + 1, :length], z[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-12)
    gradient = log_density_gradient(likelihood.given(x), z)[1]
    alone_gradient = log_density_gradient(likelihood.given(x[:1, :3]), z[:1])[1]
    torch.testing.assert_close(alone_gradient[0], gradient[0], rtol=0, atol=1e-12)
    assert gradient.abs().min() > 0


@EACH
def test_all_sentences_together_have_probability_one(generator: SequenceGenerator) -> None:
    """Every sequence of two words or fewer: an ended one, or one that is cut after two."""
    words = range(NEVER_WRITTEN, SIZE)
    ended = [[END, PAD]]
    cut = [[a, b] for a, b in itertools.product(words, words) if a != END]
    x = torch.tensor(ended + cut)
    z = latents(1).expand(len(x), -1)
    assert CategoricalLikelihood(generator).log_prob(x, z).exp().sum().item() == pytest.approx(1, abs=1e-12)


@EACH
def test_gradient_is_a_difference_quotient(generator: SequenceGenerator) -> None:
    likelihood, x, z = CategoricalLikelihood(generator), sentences(), latents()
    gradient = log_density_gradient(likelihood.given(x), z)[1]
    for coordinate in range(LATENT):
        step = torch.zeros(LATENT, dtype=torch.float64)
        step[coordinate] = 1e-5
        quotient = (likelihood.log_prob(x, z + step) - likelihood.log_prob(x, z - step)) / 2e-5
        torch.testing.assert_close(gradient[:, coordinate], quotient.detach(), rtol=1e-6, atol=1e-8)


@EACH
def test_draws_have_the_probabilities_of_their_sentences(generator: SequenceGenerator) -> None:
    """Frequencies of the first two words in 40,000 draws: chi-square of 40 or so cells below its 1e-4
    quantile.
    """
    likelihood = CategoricalLikelihood(generator)
    n, z = 40_000, latents(1)
    with torch.no_grad():
        drawn = likelihood.sample(z.expand(n, -1), torch.Generator().manual_seed(3))[:, :2]
    words = range(NEVER_WRITTEN, SIZE)
    cells = [[END, PAD], *([a, b] for a, b in itertools.product(words, words) if a != END)]
    x = torch.tensor(cells)
    expected = n * likelihood.log_prob(x, z.expand(len(x), -1)).exp()
    observed = torch.tensor([int((drawn == cell).all(dim=1).sum()) for cell in x])
    assert observed.sum() == n
    chi_square = ((observed - expected).square() / expected).sum().item()
    freedom = len(cells) - 1
    assert chi_square < freedom + 3.72 * math.sqrt(2 * freedom) + 10


@EACH
def test_the_mean_is_greedy_and_ends_once(generator: SequenceGenerator) -> None:
    likelihood = CategoricalLikelihood(generator)
    with torch.no_grad():
        generator.output.bias[END - NEVER_WRITTEN] += 0.5  # so that some end
        z = 3 * latents(50)
        x = likelihood.mean(z)
        for row, latent in zip(x.tolist(), z, strict=True):
            ends = row.index(END) if END in row else len(row)
            assert set(row[ends + 1 :]) <= {PAD}
            assert not {PAD, START} & set(row[:ends])
            for place in range(min(ends + 1, len(row))):
                others = torch.tensor([[*row[:place], word] for word in range(NEVER_WRITTEN, SIZE)])
                values = likelihood.log_prob(others, latent.expand(len(others), -1))
                assert int(values.argmax()) + NEVER_WRITTEN == row[place]
        generator.output.bias[END - NEVER_WRITTEN] -= 0.5


class TwoTopics(SequenceGenerator):
    """Words 4 and 5 with log-odds ``w z``, whatever came before: the posterior of z can be written down."""

    def __init__(self, weight: float) -> None:
        super().__init__(1, 6, LONGEST, 1, 0.0)
        self.double()
        self.weight = weight
        with torch.no_grad():
            self.output.weight.copy_(torch.tensor([[0.0], [0.0], [0.5], [-0.5]]))
            self.output.bias.copy_(torch.tensor([-50.0, -50.0, 0.0, 0.0]))

    def features(self, z: Tensor, previous: Tensor, dropping: bool = False) -> Tensor:
        return (self.weight * z).unsqueeze(1).expand(-1, previous.shape[1], -1)

    def step(self, z, previous, state):
        return self.weight * z, state


def test_posterior_chain_samples_a_known_posterior() -> None:
    """p(z | 5 words of topic A, 1 of B) ∝ N(z; 0, 1) s(wz)^5 s(-wz); mean and variance by quadrature."""
    likelihood = CategoricalLikelihood(TwoTopics(1.5))
    x = torch.tensor([[4, 4, 5, 4, 4, 4]])
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    log_density = (
        -0.5 * grid.square()
        + 5 * torch.nn.functional.logsigmoid(1.5 * grid)
        + torch.nn.functional.logsigmoid(-1.5 * grid)
    )
    weight = log_density.softmax(0)
    mean = (weight * grid).sum()
    variance = (weight * (grid - mean).square()).sum()

    n, step = 4000, 0.2
    given = likelihood.given(x.expand(n, -1))
    start = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    end = Langevin(100, step)(
        lambda z: given(z) - 0.5 * z.square().sum(dim=1), start, torch.Generator().manual_seed(1)
    )
    # five standard errors, and for the variance the chain's own bias, at most precision * step^2 / 4 of it
    # with a precision below 5
    assert end.mean().item() == pytest.approx(mean.item(), abs=5 * math.sqrt(variance / n) + 0.01)
    assert end.var().item() == pytest.approx(variance.item(), rel=5 * math.sqrt(2 / n) + 5 * step**2 / 4)
    assert abs(mean) > 0.5


def test_word_dropout_draws_from_noise_and_spares_the_targets() -> None:
    generator = generators()[0]
    likelihood = CategoricalLikelihood(generator, word_dropout=0.5).train()
    x, z = sentences(), latents()
    one, again = (likelihood.training_log_prob(x, z, Noise.shards(0, "a", shards=3)) for _ in range(2))
    other = likelihood.training_log_prob(x, z, Noise.shards(1, "a", shards=3))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    # the same rows on three processes, each padded as far as it needs
    parts = [
        likelihood.training_log_prob(
            x[r : r + 1, : int((x[r] != PAD).sum())],
            z[r : r + 1],
            Noise.shards(0, "a", shards=3, rank=r, world_size=3),
        )
        for r in range(3)
    ]
    torch.testing.assert_close(torch.cat(parts), one, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        likelihood.log_prob(x, z)[2], one[2], rtol=0, atol=1e-12
    )  # nothing but <bos> to drop
    # which words were dropped decides the value: it is the loop's with these words unknown to the generator,
    # not to the target
    chance = Noise.shards(0, "a", shards=3).uniform((3, LONGEST)) < 0.5
    told = torch.where(chance[:1, :3], UNKNOWN, torch.tensor([[START, 4, 5]]))
    told[0, 0] = START
    logits = generator.output(generator.features(z[:1], told)).log_softmax(dim=2)
    expected = sum(logits[0, place, word - NEVER_WRITTEN] for place, word in enumerate([4, 5, END]))
    torch.testing.assert_close(one[0], expected, rtol=0, atol=1e-12)


def test_dropout_acts_in_training_only_and_never_in_chains() -> None:
    torch.manual_seed(0)
    likelihood = CategoricalLikelihood(RecurrentGenerator(LATENT, SIZE, LONGEST, 8, 8, dropout=0.5)).double()
    x, z = sentences(), latents()
    plain = likelihood.log_prob(x, z)
    assert torch.equal(likelihood.train().log_prob(x, z), plain)
    assert not torch.equal(likelihood.training_log_prob(x, z), plain)
    assert torch.equal(likelihood.eval().training_log_prob(x, z), plain)


def test_the_recurrent_layer_keeps_the_mode_that_cudnn_needs() -> None:
    likelihood = CategoricalLikelihood(RecurrentGenerator(LATENT, SIZE, LONGEST)).eval()
    assert likelihood.generator.recurrent.training
    assert not likelihood.generator.training


def model_of(likelihood: Likelihood) -> LatentMLE:
    return LatentMLE(likelihood, StandardNormal(LATENT), Langevin(1, 0.1), Langevin(1, 0.1))


def test_a_checkpoint_carries_the_vocabulary() -> None:
    words = Vocabulary.learn(["a b c"], SIZE)
    trained, fresh = (CategoricalLikelihood(RecurrentGenerator(LATENT, SIZE, LONGEST)) for _ in range(2))
    with pytest.raises(ValueError, match="no vocabulary yet"):
        _ = model_of(trained).sentences
    trained.adopt(words)
    fresh.load_state_dict(trained.state_dict())
    assert fresh.vocabulary == words
    assert model_of(fresh).sentences is fresh
    assert fresh.spell(fresh.read(["a c", "b x"])) == ["a c", "b <unk>"]
    fresh.load_state_dict(trained.state_dict())  # the same again is fine
    fresh.adopt(Vocabulary.learn(["d e f"], SIZE))
    with pytest.raises(ValueError, match="another vocabulary"):
        fresh.load_state_dict(trained.state_dict())
    assert model_of(GaussianLikelihood(IdentityGenerator(LATENT))).sentences is None


def test_a_vocabulary_too_large_is_refused() -> None:
    likelihood = CategoricalLikelihood(RecurrentGenerator(LATENT, SIZE, LONGEST))
    with pytest.raises(ValueError, match="12 tokens but the generator's vocabulary_size is 9"):
        likelihood.adopt(Vocabulary.learn(["a b c d e f g h"], 100))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CategoricalLikelihood(generators()[0], word_dropout=1.0), "word_dropout must be in"),
        (lambda: RecurrentGenerator(0, SIZE, LONGEST), "latent_dim must be at least 1, not 0"),
        (lambda: RecurrentGenerator(1, 4, LONGEST), "vocabulary_size must be at least 5, not 4"),
        (lambda: RecurrentGenerator(1, SIZE, LONGEST, dropout=1.0), "dropout must be in"),
        (lambda: RecurrentGenerator(1, SIZE, LONGEST, cell="rnn"), "cell must be one of lstm, gru"),  # type: ignore[arg-type]
        (lambda: TransformerGenerator(1, SIZE, LONGEST, width=6, heads=4), "heads must divide width"),
        (lambda: RecurrentGenerator(1, SIZE, LONGEST, embedding=0), "embedding must be at least 1, not 0"),
        (lambda: TransformerGenerator(1, SIZE, LONGEST, heads=0), "heads must be at least 1, not 0"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_encoder_sees_the_words_and_not_the_padding() -> None:
    torch.manual_seed(0)
    encoder = SentenceEncoder(LATENT, SIZE, LONGEST, 4, 5).double()
    x = sentences()
    found = encoder(x)
    for row in range(3):
        alone = encoder(x[row : row + 1, : int((x[row] != PAD).sum())])
        torch.testing.assert_close(alone.mean[0], found.mean[row], rtol=0, atol=1e-12)
        torch.testing.assert_close(alone.log_scale[0], found.log_scale[row], rtol=0, atol=1e-12)
    changed = x.clone()
    changed[0, 0] = 8
    assert not torch.allclose(encoder(changed).mean[0], found.mean[0])
