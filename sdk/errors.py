"""Every exception that boardfit raises on purpose.

Each class has a built-in as its second parent, so that callers who know nothing of boardfit still
catch the kind of failure that they expect. A message says what happened, what was expected, and
what to do.
"""

from __future__ import annotations


class BoardfitError(Exception):
    """Base of the family: catch this to catch all that boardfit reports."""


class InputError(BoardfitError, ValueError):
    """A frame, an image file or an input path cannot be used."""


class RecipeError(BoardfitError, ValueError):
    """An option, a recipe file or a combination of them makes no sense."""


class UnsupportedModel(BoardfitError, ValueError):
    """The source model is damaged, unsafe, or has a part that boardfit cannot carry over."""


class UnsupportedSize(UnsupportedModel):
    """The source model cannot be run at a size that was asked for."""


class CompressError(BoardfitError, RuntimeError):
    """A model could not be pruned, distilled or made elastic."""


class ExportError(BoardfitError, RuntimeError):
    """A format's converter failed, or dropped a part of the graph."""


class ParityError(BoardfitError, ArithmeticError):
    """An exported artifact does not answer like its source."""


class BundleError(BoardfitError, ValueError):
    """A bundle is damaged, incomplete or not of a known schema."""


class UntrustedBundle(BundleError):
    """A bundle is whole, but too few of those whom the caller trusts have signed it."""


class EngineError(BoardfitError, RuntimeError):
    """An inference engine refused an artifact or failed while it ran."""


class CameraError(BoardfitError, OSError):
    """A camera, stream or video cannot be opened or read."""


class SinkError(BoardfitError, OSError):
    """A place for answers (a file, a recording) cannot be written."""


class BoardError(BoardfitError, ValueError):
    """A board is not known, or its profile is damaged."""


class RemoteError(BoardfitError, OSError):
    """A board cannot be reached, or what was sent to it or run there failed."""


class ImageError(BoardfitError, RuntimeError):
    """A container image cannot be made: of this board, on this base, or by the program that builds it."""


class ReportError(BoardfitError, ValueError):
    """A report is damaged or of another schema, or two reports cannot be compared."""


class EngineMissing(BoardfitError, ImportError):
    """The engine's library is not installed. The message names the command to type."""


class ToolMissing(BoardfitError, ImportError):
    """A library that converting or signing needs is not installed. The message names the command to type."""


class EngineLost(EngineError):
    """An isolated engine crashed, hung or took too much memory, and was killed; another takes its place.

    Attributes:
        reason: ``crashed``, ``hung`` or ``memory``.
    """

    def __init__(self, message: str, reason: str = "crashed") -> None:
        super().__init__(message)
        self.reason = reason


class SwapRefused(BoardfitError, RuntimeError):
    """A new bundle failed its tests before it answered a frame; the old one goes on."""
