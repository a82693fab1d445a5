"""The door of ``boardfit.load``: looks for what ``boardfit tune`` found on this board, and passes it on.

The runtime knows neither boards nor tunings; it gets plain values.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boardfit.errors import BoardfitError, ReportError

if TYPE_CHECKING:
    from boardfit.bundle import Bundle, Manifest
    from boardfit.runtime.choose import Setup
    from boardfit.runtime.isolate.options import Isolation
    from boardfit.runtime.model import Model
    from boardfit.specs import PolicySpec


def load(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    engine: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    affinity: Sequence[int] | None = None,
    policy: str | PolicySpec | None = None,
    size: int | None = None,
    stream: bool = False,
    max_resident_sizes: int | None = None,
    isolate: bool | Isolation = False,
    tuning: bool | str | os.PathLike[str] = True,
    trusted_keys: Sequence[str | os.PathLike[str] | bytes] | None = None,
    key_threshold: int = 1,
) -> Model:
    """Open a bundle and make it ready to run.

    The arguments hold for bundles that are swapped in later, too; each is looked up a tuning for.

    A Model is as thread-safe as a Session; see ``boardfit.runtime.session.load``.

    Args:
        bundle: Path of a .boardfit file or of an unpacked one, or an open Bundle, which stays open.
        engine: ``litert``, ``onnxruntime``, ``ncnn`` or another registered one. By default the tuning's, or
            else the first of these whose format is in the bundle and whose library is installed; every one
            that is passed over for want of its library is named in a warning of the logger ``boardfit``.
        precision: ``fp32``, ``fp16``, ``int8`` and so on; by default the tuning's, or else fp32 where the
            bundle has it.
        threads: Of the engine; by default the tuning's, or else the usable cores, at most 4.
        affinity: Numbers of the cores that the engine and all its threads are bound to; the caller's own
            threads are left alone. By default the tuning's, or else none. An empty one binds nothing.
        policy: ``fixed``, ``entropy``, ``two-look``, or a PolicySpec; by default the bundle's own.
        size: The one input side in pixels to use, which means the policy ``fixed``.
        stream: Whether frames follow each other in time: sizes then change with hysteresis.
        max_resident_sizes: Keep an engine for each of at most so many sizes, the last ones used. By default
            one engine per file serves all its sizes, which takes the least memory; but for a two-look policy
            on LiteRT, where a change of size costs 0.3 to 1.0 ms, one engine for each look (for
            EfficientNet-Lite0 some 25 MiB more). Give 1 to spare that memory.
        isolate: Whether the engine runs in a process of its own, which is killed and replaced where it
            crashes, hangs or takes too much memory; or the limits that it then has.
        tuning: The ``tuning.json`` of ``boardfit tune`` to use; True for this user's own of this board, where
            there is one; False for none. It fills in what the arguments above leave open. One of another
            board, engine version or bundle is not used, and the logger ``boardfit`` says why.
        trusted_keys: Public keys of ``boardfit keygen``, each a path or the bytes of a file: a bundle runs
            only if they have signed it. An expired signature still counts here, and no more for a bundle
            that is swapped in. None checks no signature.
        key_threshold: How many of them must have signed.

    Raises:
        BundleError: If the bundle is damaged, or not a bundle; UntrustedBundle, if too few of the trusted
            keys have signed it.
        ToolMissing: If keys are given and cryptography is not installed.
        EngineMissing: If the engine, or every engine for the bundle's formats, is not installed.
        EngineError: If the engine refuses the bundle's file; EngineLost, if it was isolated and did not
            survive the file.
        RecipeError: If the bundle lacks what is asked for, or the options contradict each other.
    """
    from boardfit.runtime.choose import Setup
    from boardfit.runtime.model import load as load_model

    # A bound engine is one of this process.
    free = () if isolate and affinity is None else affinity
    asked = Setup(engine, precision, threads, None if free is None else tuple(free))

    def advise(opened: Bundle) -> Setup | None:
        return advice(opened, asked, policy=policy, size=size, tuning=tuning)

    return load_model(
        bundle,
        engine=engine,
        precision=precision,
        threads=threads,
        affinity=affinity,
        policy=policy,
        size=size,
        stream=stream,
        max_resident_sizes=max_resident_sizes,
        isolate=isolate,
        trusted_keys=trusted_keys,
        key_threshold=key_threshold,
        advise=None if tuning is False else advise,
    )


def advice(
    bundle: Bundle,
    asked: Setup,
    *,
    policy: str | PolicySpec | None = None,
    size: int | None = None,
    tuning: bool | str | os.PathLike[str] = True,
) -> Setup | None:
    """Return the setup that a tuning of this board has for a bundle; None where there is nothing to say.

    What becomes of it is told to the logger ``boardfit``. Nothing that is wrong with a tuning is an error.

    Args:
        bundle: Open bundle.
        asked: What the caller has said.
        policy: The caller's, which says what sizes will run.
        size: The same.
        tuning: True for this user's own, or the path of one.
    """
    if tuning is False or None not in (asked.engine, asked.precision, asked.threads, asked.affinity):
        return None
    from boardfit.benchmarks.tuning import key_here, read_tuning

    log = logging.getLogger("boardfit")
    try:
        path = own_tuning(bundle.manifest) if tuning is True else Path(tuning)
        if path is None:
            return None
        known = read_tuning(path)
        reason = known.key.differs_from(key_here(bundle.manifest, known.key.versions))
        if reason:
            log.log(logging.INFO if tuning is True else logging.WARNING, "%s is not used: %s", path, reason)
            return None
        setup = known.choose(answering_sizes(bundle.manifest, policy, size), asked)
    except (BoardfitError, OSError) as error:
        log.warning("the tuning is not used: %s", error)
        return None
    if setup is not None:
        log.info("tuned: %s, by %s", setup.text, path)
    return setup


def own_tuning(manifest: Manifest) -> Path | None:
    """Return the path of this user's own tuning of a bundle's models on this board; None without one."""
    from boardfit.benchmarks.tuning import machine_here, models_id, own_folder, own_path

    try:
        if not own_folder().is_dir():  # the usual case: nobody has tuned anything
            return None
    except ReportError:  # a service without a home has not tuned either
        return None
    path = own_path(models_id(manifest), machine_here())
    return path if path.is_file() else None


def answering_sizes(
    manifest: Manifest, policy: str | PolicySpec | None = None, size: int | None = None
) -> tuple[int, ...]:
    """Return what sizes will answer, as ``choose_policy`` decides it."""
    if size is not None:
        return (size,)
    if policy is None or policy == manifest.policy.kind:
        policy = manifest.policy
    kind, sizes = (policy, manifest.sizes) if isinstance(policy, str) else (policy.kind, policy.sizes)
    return sizes[-1:] if kind == "fixed" else sizes
