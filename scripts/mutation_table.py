"""The mutations of mutations.py: where and how the code is broken, and which tests must notice."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTATIONS", "Mutation"]

GROUND = "tests/ground_truth"


@dataclass(frozen=True)
class Mutation:
    file: str
    old: str
    new: str
    meaning: str
    tests: tuple[str, ...]


def on(file: str, *tests: str):  # type: ignore[no-untyped-def]
    """Mutations of one file, all watched by the same tests."""
    return lambda meaning, old, new: Mutation(file, old, new, meaning, tests)


compiled = on("lebm/samplers/compiled.py", "tests/samplers/test_langevin.py")
langevin = on("lebm/samplers/langevin.py", f"{GROUND}/test_langevin.py", "tests/samplers/test_langevin.py")
prior = on("lebm/models/priors.py", "tests/samplers/test_langevin.py", "tests/models/test_priors.py")
mixture = on("lebm/models/mixture.py", "tests/models/test_mixture.py")
chain_rule = on("lebm/models/energies.py", "tests/models/test_input_gradient.py")
shadow = on("lebm/samplers/metropolis.py", f"{GROUND}/test_langevin.py")
gradient = on("lebm/samplers/base.py", f"{GROUND}/test_langevin.py", "tests/samplers/test_contract.py")
adaptation = on(
    "lebm/samplers/adaptation.py", f"{GROUND}/test_langevin.py", "tests/samplers/test_langevin.py"
)
metropolis = on(
    "lebm/samplers/metropolis.py",
    f"{GROUND}/test_metropolis.py",
    f"{GROUND}/test_langevin.py",
    "tests/samplers/test_contract.py",
)
tempering = on("lebm/samplers/tempering.py", f"{GROUND}/test_metropolis.py")
targets = on("lebm/samplers/targets.py", "tests/samplers/test_targets.py", f"{GROUND}/test_metropolis.py")
importance = on("lebm/samplers/importance.py", f"{GROUND}/test_importance.py")
annealed = on("lebm/samplers/annealed.py", f"{GROUND}/test_importance.py")
chains = on("lebm/samplers/chains.py", "tests/samplers/test_chains.py")
noise = on("lebm/samplers/noise.py", "tests/samplers/test_noise.py")
diagnostics = on("lebm/samplers/diagnostics.py", "tests/samplers/test_diagnostics.py")
RATIO_TESTS = (
    "tests/models/test_ratios.py",
    f"{GROUND}/test_ratio_prior.py",
    "tests/density_ratio/test_classifiers.py",
    "tests/estimators/test_multistage_nce.py",
)
loss = on("lebm/density_ratio/log_ratio.py", *RATIO_TESTS)
constants = on("lebm/density_ratio/log_ratio.py", *RATIO_TESTS, "tests/density_ratio/test_log_z.py")
stages = on("lebm/models/ratios.py", *RATIO_TESTS)

likelihood = on("lebm/evaluation/likelihood_suite.py", "tests/evaluation/test_likelihood_suite.py")
KINDS = ("tests/inference/test_parts.py", "tests/inference/test_truth.py")
kinds = on("lebm/inference/chains.py", *KINDS)
encoders = on("lebm/inference/encoders.py", *KINDS)
inference_terms = on("lebm/estimators/prior_model.py", *KINDS, "tests/estimators/test_joint_hierarchical.py")
fit_of_base = on("lebm/estimators/prior_model.py", "tests/estimators/test_fit_base.py")
rule_of_base = on("lebm/estimators/fit_base.py", "tests/estimators/test_fit_base.py")
direct = on("lebm/estimators/prior_model.py", "tests/estimators/test_prior_chains.py")
pool = on("lebm/samplers/chains.py", "tests/samplers/test_chains.py")
method_of_stages = on("lebm/estimators/multistage_nce.py", "tests/estimators/test_multistage_nce.py")
latent_chains = on("lebm/estimators/prior_model.py", "tests/estimators/test_chain_context.py")
image_chains = on("lebm/estimators/dual_mcmc.py", "tests/estimators/test_chain_context.py")
estimator = on("lebm/estimators/latent_model.py", "tests/estimators/test_chain_context.py")
ranks = on("lebm/evaluation/intervals.py", "tests/evaluation/test_intervals.py")
surprise = on("lebm/metrics/anomaly.py", "tests/metrics/test_anomaly.py")
both_scores = on("lebm/evaluation/scores.py", "tests/evaluation/test_suites.py")

MUTATIONS = [
    langevin("drop the 1/2 of the drift", "[0.5 * size**2 for size", "[size**2 for size"),
    langevin("drift by s instead of s^2", "[0.5 * size**2 for size", "[0.5 * size for size"),
    prior(
        "forget the base in a tilted prior's gradient",
        "else slope - state_gradient(self.energy, z)",
        "else -state_gradient(self.energy, z)",
    ),
    prior(
        "ascend the energy",
        "else slope - state_gradient(self.energy, z)",
        "else slope + state_gradient(self.energy, z)",
    ),
    prior("the other sign of the tilt", "else density - self.energy(z)", "else density + self.energy(z)"),
    prior("weights of the inverse tilt", "else -self.energy(z)", "else self.energy(z)"),
    prior(
        "an energy that waits tilts already",
        "Tilted(self.base, None if self.asleep else self.tilt)",
        "Tilted(self.base, self.tilt)",
    ),
    mixture(
        "no log-determinant",
        "            + self.whitener[: self._count].diagonal(dim1=1, dim2=2).log().sum(dim=1)\n",
        "",
    ),
    mixture("a gradient without shares", "white *= torch.softmax(", "torch.softmax("),
    mixture("draws by the transposed factor", '"nij,nj->ni"', '"nji,nj->ni"'),
    mixture("covariances around the origin", "moment - mean.unsqueeze(2) * mean.unsqueeze(1)", "moment"),
    mixture("means around the centre", "self.mean[:count] += centre", "pass"),
    mixture("no floor", "covariance + floor.double() * eye", "covariance + 1e-12 * eye"),
    mixture("choose the worst number of components", "best = max(found", "best = min(found"),
    mixture("half precision under autocast", "nullcontext() if z.is_meta else", "nullcontext() if True else"),
    chain_rule(
        "the input's slope at the output of an activation",
        "gelu_backward(slope, seen,",
        "gelu_backward(slope, made,",
    ),
    chain_rule(
        "wrong slope of the leaky part",
        "seen, layer.negative_slope, False",
        "seen, 2 * layer.negative_slope, False",
    ),
    chain_rule(
        "forget the activations", "else _BACKWARD[type(layer)](slope, seen, made, layer)", "else slope"
    ),
    chain_rule(
        "ignore hooks", "    if layer._forward_hooks or", "    if False and layer._forward_hooks or False and"
    ),
    langevin("descend instead of ascend", "slope, alpha=drift)", "slope, alpha=-drift)"),
    langevin("no kick, eager and compiled", "moved = kick + state", "moved = 0 * kick + state"),
    langevin("noise of scale s^2", "size * math.sqrt(heat)", "size**2 * math.sqrt(heat)"),
    langevin("noise too large by sqrt 2", "noise.mul_(scales[0])", "noise.mul_(1.414 * scales[0])"),
    langevin("temperature instead of its root", "size * math.sqrt(heat)", "size * heat"),
    langevin("forget the schedule of the noise", "if len(set(scales)) == 1", "if len(scales) >= 1"),
    langevin("precondition the noise by M, not its root", "noise.mul_(metric.sqrt())", "noise.mul_(metric)"),
    langevin(
        "no preconditioned noise",
        "return noise if metric is None else noise.mul_(metric.sqrt())",
        "return noise",
    ),
    langevin("no preconditioned drift", "gradient if metric is None else metric * gradient", "gradient"),
    langevin("do not clamp", "moved if clamp is None else moved.clamp(*clamp)", "moved"),
    langevin("compiled: descend", "moved + drift * slope", "moved - drift * slope"),
    langevin("do not clip", "if limit is not None:", "if False:"),
    compiled("the noise backwards", "noise.unbind(0)", "noise.flip(0).unbind(0)"),
    langevin(
        "the shadow step starts elsewhere",
        "before, state, gradient, sizes[-1]",
        "start, state, gradient, sizes[-1]",
    ),
    shadow(
        "clip over the batch",
        "norm = gradient.flatten(1).norm(dim=1)",
        "norm = gradient.norm().expand(gradient.shape[0])",
    ),
    shadow("accept the inverse ratio", "log_ratio = difference *", "log_ratio = -difference *"),
    shadow("swap forward and backward", "(forward - backward)", "(backward - forward)"),
    shadow("drop the 1/2 of the proposal's density", "/ (2 * noise_scale**2)", "/ noise_scale**2"),
    shadow("forget the temperature", "difference * (step_size / noise_scale) ** 2", "difference"),
    shadow(
        "proposal without preconditioner",
        "inverse = 1.0 if metric is None else metric.rsqrt()",
        "inverse = 1.0",
    ),
    gradient("gradient of minus the log-density", "torch.ones_like(value)", "-torch.ones_like(value)"),
    gradient("mean instead of sum", "torch.ones_like(value)", "torch.ones_like(value) / len(value)"),
    adaptation(
        "adapt away from the target", "self._error_sum += self.target -", "self._error_sum -= self.target -"
    ),
    adaptation(
        "keep the last step, not the average",
        "self.step_scale = averaging.average",
        "self.step_scale = averaging.current * 2",
    ),
    adaptation("do not restore the step", "self.step_scale = float(state)", "self.step_scale = 1.0"),
    metropolis("accept everything", "accept = chance.log() < log_ratio", "accept = finite"),
    metropolis(
        "swap accept and reject", "accept = chance.log() < log_ratio", "accept = chance.log() >= log_ratio"
    ),
    metropolis(
        "forget the kinetic energy", "_kinetic(momentum) - _kinetic(turned) + ", "0 * _kinetic(turned) + "
    ),
    metropolis("kinetic energy without 1/2", "return 0.5 * _precise", "return 1.0 * _precise"),
    metropolis(
        "sign of the potential", "return _precise(new) - _precise(", "return -_precise(new) + _precise("
    ),
    metropolis("full first half step", "momentum + 0.5 * step * gradient", "momentum + step * gradient"),
    metropolis("full last half step", "else 0.5 * step) * gradient", "else step) * gradient"),
    metropolis(
        "keep the old gradient", "gradient = torch.where(rows(accept, state), new_gradient, gradient)", "pass"
    ),
    metropolis("keep the old value", "value = torch.where(accept, new_value, value)", "pass"),
    metropolis("precondition by M, not its root", "base_step * metric.sqrt()", "base_step * metric"),
    metropolis(
        "accept what is not finite",
        "torch.where(finite, log_ratio, -torch.inf)",
        "torch.where(finite, log_ratio, 0.0)",
    ),
    metropolis(
        "reject all from a start without density", "torch.where(torch.isnan(old), -torch.inf, old)", "old"
    ),
    tempering(
        "swap by the inverse ratio",
        "(inverse[colder] - inverse[hotter])",
        "(inverse[hotter] - inverse[colder])",
    ),
    tempering("swap always", "accept = chance.log() < log_ratio", "accept = chance < 2"),
    tempering("never swap", "accept = chance.log() < log_ratio", "accept = chance > 2"),
    tempering(
        "temper by the root", "cold_to_hot = root.square().reciprocal()", "cold_to_hot = root.reciprocal()"
    ),
    tempering("half a swap", "order[:, hotter] = torch.where(accept, colder, hotter)", "pass"),
    tempering(
        "forget to stretch back",
        "replicas = moved.reshape(shape) * stretch",
        "replicas = moved.reshape(shape)",
    ),
    tempering("offer the first pairs only", "cold_to_hot, step % 2, generator", "cold_to_hot, 0, generator"),
    targets("freeze the free part", "(~frozen).flatten()", "frozen.flatten()"),
    targets("temper the base too", "+ (1.0 - inverse) * base(state)", "+ inverse * base(state)"),
    importance(
        "resample by the inverse weights",
        "(log_weights - log_weights.amax",
        "(-log_weights + log_weights.amax",
    ),
    importance(
        "weights without the proposal",
        "values = values - log_proposal(flat)",
        "values = values - 0 * log_proposal(flat)",
    ),
    importance(
        "proposal's density without 1/2", "return -0.5 * flat.square()", "return -1.0 * flat.square()"
    ),
    importance("accept by the inverse ratio", "weight, weight - current)", "weight, current - weight)"),
    importance("keep the weight of the start", "current = torch.where(accept, weight, current)", "pass"),
    importance(
        "propose draws of N(0, I) for every target",
        'getattr(log_density, "base", None) if proposal is None else proposal',
        "proposal",
    ),
    importance("ESS without the square", "(2 * log_weights.logsumexp(dim)", "(log_weights.logsumexp(dim)"),
    importance("off by one candidate", "(chosen - 1).clamp_min(0)", "chosen.clamp(max=fresh.shape[1] - 1)"),
    importance("keep the old weight", "current = log_weights.gather(1, chosen.unsqueeze(1))", "pass"),
    importance(
        "let NaN weigh one",
        "torch.where(torch.isfinite(log_weights), log_weights, -torch.inf)",
        "torch.nan_to_num(log_weights)",
    ),
    annealed("sign of the weight", "total += (after - before)", "total -= (after - before)"),
    annealed("weigh after the move", "            if 0 < after < 1:", "            if 0 < after:"),
    annealed(
        "anneal along the wrong path",
        "beta * log_density(state) + (1 - beta)",
        "(1 - beta) * log_density(state) + beta",
    ),
    annealed("sum instead of mean", "log_weights.logsumexp(0) - math.log(n)", "log_weights.logsumexp(0)"),
    annealed("interval of one weight", "relative.std(dim=0) / math.sqrt(n)", "relative.std(dim=0)"),
    annealed("reverse sign", "return cls(-mean, -high, -low, ess) if", "return cls(mean, low, high, ess) if"),
    annealed("few weights as good as many", "few = ess < RELIABLE", "few = ess < 0"),
    annealed("one-sided level", "inv_cdf(0.5 + level / 2)", "inv_cdf(level)"),
    chains(
        "restart the others",
        "device=start.device) < self.restart_rate",
        "device=start.device) > self.restart_rate",
    ),
    chains("never turn to the next slot", "self.calls += 1", "self.calls += self.slots"),
    chains(
        "forget where chains ended",
        "part.copy_(end.unflatten(0, (b, k)).transpose(0, 1))",
        "part.copy_(begin.unflatten(0, (b, k)).transpose(0, 1))",
    ),
    chains(
        "every process takes the first rows",
        "rank * total // world_size : (rank + 1) * total // world_size",
        ": total // world_size",
    ),
    noise(
        "all streams alike",
        "for shard in shards_of_rank(shards, rank, world_size)]",
        "for shard in [0] * (shards // world_size)]",
    ),
    noise(
        "a stream for the process, not the shard",
        "return range(rank * own, (rank + 1) * own)",
        "return range(own)",
    ),
    encoders("the prior pulls with its whole weight", "return self.prior_pull * grown", "return grown"),
    noise(
        "deal rows from the end", "- position * rows // len(streams)", "- -(-position * rows // len(streams))"
    ),
    diagnostics("no split", "return torch.cat([draws[:half], draws[-half:]], dim=1)", "return draws"),
    diagnostics("no ranks", "return scores.T.reshape(draws.shape)", "return draws"),
    diagnostics("between-chain variance lost", "between / within", "0 * between / within"),
    diagnostics("wrapped autocovariance", "n=2 * count, dim=0)\n    return", "n=count, dim=0)\n    return"),
    diagnostics("no monotone sequence", "sums.cummin(dim=0).values", "sums"),
    loss("swap the classes", "odds * softplus(positive - shift)", "odds * softplus(shift - positive)"),
    loss("forget the odds", "shift = math.log(odds)", "shift = 0.0"),
    loss("positives only", "+ softplus(shift - negative).mean()", ""),
    loss("log-ratio of the other sign", "return -self.energy(z)", "return self.energy(z)"),
    loss("keep log Z", "return self.raw(z) - self.prior.log_constant().log_z", "return self.raw(z)"),
    loss("interval too narrow", "up.std() / math.sqrt(up.shape[0])", "up.std() / up.shape[0]"),
    constants(
        "weights of the inverse tilt",
        "LogZ.from_log_weights(-prior.energy(z)",
        "LogZ.from_log_weights(prior.energy(z)",
    ),
    constants("forget a stage's weight", "total += weights", "total = weights"),
    constants(
        "anneal from the base every time",
        "prior.log_density_after(stage), prior",
        "prior.log_density_after(0), prior",
    ),
    stages(
        "the prior climbs its energies",
        "Tilted(self.base, self.tilt.so_far)",
        "Tilted(self.base, lambda z: -self.tilt.so_far(z))",
    ),
    stages(
        "one stage too few",
        "self.tilt.stages(z, stage).sum(dim=0)",
        "self.tilt.stages(z, max(0, stage - 1)).sum(dim=0)",
    ),
    stages("the new stage starts where the old one ended", "last.weight.zero_()", "last.weight.mul_(1)"),
    method_of_stages("fresh chains skip the first product", "range(1, self.prior", "range(2, self.prior"),
    method_of_stages(
        "fresh chains start each product anew",
        "self.prior_sampler(target, z.detach()",
        "self.prior_sampler(target, self.chain_start(n, generator)",
    ),
    likelihood("log Z is added", "value = over_images.value - log_z", "value = over_images.value + log_z"),
    latent_chains(
        "chains of networks in training mode",
        "        with frozen(self.prior, self.likelihood):",
        "        if True:",
    ),
    latent_chains(
        "answers move the pool", "with frozen(self.prior, self.prior_sampler):", "with frozen(self.prior):"
    ),
    image_chains("image chains in half precision", "generated.to(self.dtype)", "generated"),
    image_chains(
        "posterior chains in half precision",
        "if start is None else start).to(self.dtype)",
        "if start is None else start)",
    ),
    estimator(
        "contrast of half-precision means",
        "energies.to(torch.promote_types(energies.dtype, torch.float32))",
        "energies",
    ),
    ranks("score interval forgotten", "min(low, widest[0]), max(high, widest[1])", "low, high"),
    ranks(
        "resample both kinds together",
        "for kind in (positive, ~positive):",
        "for kind in (positive | True,):",
    ),
    kinds("a row forgets its chain", "return torch.where(new[:, None], fresh, known)", "return fresh"),
    kinds("a broken chain goes on", " | ~torch.isfinite(known).all(dim=1)", ""),
    kinds("chains end in other rows", "self._memory[index] = end", "self._memory[index.flip(0)] = end"),
    encoders(
        "the encoder learns where chains start",
        "teaching=-q.log_prob(end).mean()",
        "teaching=-q.entropy().mean()",
    ),
    encoders(
        "a taught chain starts at the reference", "run(q.rsample(noise).detach(), noise)", "run(None, noise)"
    ),
    encoders(
        "a draw without gradient", "Inferred(q.rsample(noise), q)", "Inferred(q.rsample(noise).detach(), q)"
    ),
    inference_terms(
        "no divergence", "return parts.sum(dim=1).mean()", "return 0.0 * parts.sum(dim=1).mean()"
    ),
    inference_terms(
        "mirror images share a chain", 'index = 2 * index + batch["flipped"].to(index)', "index = 2 * index"
    ),
    fit_of_base(
        "sign of the divergence",
        "-(q.entropy() + base.log_density(z))",
        "(q.entropy() + base.log_density(z))",
    ),
    fit_of_base(
        "an energy that waits decays", "                parameter.grad = None", "                pass"
    ),
    fit_of_base(
        "averages keep the base of the start",
        'renew_averages(self.trainer, self, ["prior", "fit_base"])',
        "pass",
    ),
    fit_of_base(
        "statistics of networks that are left",
        "with torch.no_grad(), frozen(self.likelihood, self.inference):",
        "with torch.no_grad():",
    ),
    rule_of_base("the oldest latents", "[-self.rows :]", "[: self.rows]"),
    rule_of_base(
        "the energy learns after the first fit", "self.steps < self.due[-1]", "self.steps < self.due[0]"
    ),
    direct("as few steps as for a constant energy", "math.log(100) * largest", "math.log(100)"),
    direct(
        "weights of the inverse tilt",
        "clean_log_weights(-self.prior.energy(z)",
        "clean_log_weights(self.prior.energy(z)",
    ),
    direct("direct draws move buffers", "with torch.no_grad(), frozen(self.prior):", "with torch.no_grad():"),
    pool("fresh chains as short as a step", "if self.training or self.fresh_steps is None", "if True"),
    pool("the pool is its first row", "(place * len(states)).long()", "(0 * place).long()"),
    surprise("the tail begins too high", "-torch.tensor(count / len(ordered)).double().log() +", "4.0 +"),
    surprise(
        "the tail falls too fast",
        "(ordered[-count:] - threshold).mean()",
        "(ordered[-count:] - threshold).div(2).mean()",
    ),
    surprise(
        "the share below",
        "(len(ordered) - torch.searchsorted(ordered, score))",
        "torch.searchsorted(ordered, score)",
    ),
    both_scores("the prior alone", "return first + second", "return second"),
]
