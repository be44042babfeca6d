"""Print the traffic of a space of sessions in a few lines."""

from __future__ import annotations

from collections.abc import Iterator

from tune_gpu.common.wording import counted
from tune_gpu.config.languages import spoken_language
from tune_gpu.config.schema import ExperimentConfig
from tune_gpu.config.targets import Target
from tune_gpu.workload.sessions.outline import ProfileOutline, TrafficOutline, outline_of
from tune_gpu.workload.sources.loaded import SessionSources, load_sources
from tune_gpu.workload.stages import stages_of


def read_traffic(config: ExperimentConfig) -> tuple[TrafficOutline, SessionSources]:
    """Return the outline of a space's sessions and their sources. Raise UserError if a source cannot be read."""
    stages = stages_of(config)
    sources = load_sources(config.workload, stages, spoken_language(config))
    return outline_of(config.workload, stages, sources, seed=config.search.seed), sources


def traffic_lines(config: ExperimentConfig, outline: TrafficOutline, sources: SessionSources) -> Iterator[str]:
    """Yield the lines that a plan prints about its sessions."""
    workload = config.workload
    yield (
        f"traffic: {outline.sessions_per_min:g} sessions/min ({workload.arrivals.process}), about {outline.under_way:.0f} under way, "
        f"{outline.turns_per_window:.1f} turns expected per window of {workload.window_s:g} s; longest prompt with its answer about {outline.longest_tokens:,} tokens"
    )
    yield from (f"  {_profile_line(profile)}" for profile in outline.profiles)
    if outline.synthetic:
        yield f"  {100 * outline.synthetic:.0f} % of the sessions are synthetic: built-in words that no user of yours has said"
    yield from (f"  {note}" for note in sources.notes)
    yield from context_warnings(config, outline)


def _profile_line(profile: ProfileOutline) -> str:
    what = "conversation" if not profile.single else "request"
    what = f"{'built-in ' if profile.synthetic else ''}{'spoken ' if profile.spoken else ''}{what}"
    least, most = profile.prompt_tokens
    prompt = f"system prompt of about {profile.system_tokens:,} tokens" if profile.system_tokens else "no system prompt of its own"
    prompts = f", prompts of about {least:,} to {most:,} tokens" if most else ""
    return f"{profile.name} {100 * profile.share:.0f} %: {counted(profile.n_conversations, what)}, {profile.turns:.1f} turns per session, {prompt}{prompts}"


def context_warnings(config: ExperimentConfig, outline: TrafficOutline) -> Iterator[str]:
    """Yield a warning for each LLM whose context may be too short. The client shortens no prompt, so such turns fail."""
    for stage in stages_of(config):
        if not stage.generates:
            continue
        known = [getattr(config.services[stage.service], "max_model_len", None)]
        for spec in config.parameters.values():
            if Target.parse(spec.target) == Target(stage.service, "max_model_len") and spec.values:
                known = list(spec.values)
        short = [length for length in known if isinstance(length, int) and length < outline.longest_tokens]
        if short:
            yield (
                f"  {stage.service}.max_model_len={max(short)}: prompts of about {outline.longest_tokens:,} tokens with their answers are planned, and are not shortened. "
                f"Turns above it fail as {stage.label}_context_too_long."
            )
