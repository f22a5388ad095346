"""A text as a voice should be given it: numbers, units and abbreviations written out."""

LANGUAGES = ("en", "ja", "zh")
"""Those that the library (wetext, the grammars of WeTextProcessing) knows."""


class SpokenForm:
    """``It's 5 °C`` -> ``It's five degrees Celsius``."""

    def __init__(self, language: str | None) -> None:
        """Load the grammars; of a language without any, a text stays as it is."""
        self._normalise = None
        if language in LANGUAGES:
            from wetext import Normalizer

            self._normalise = Normalizer(lang=language, operator="tn").normalize

    def __call__(self, text: str) -> str:
        """The spoken form; the text itself where the grammars fail or leave nothing."""
        if self._normalise is None:
            return text
        try:
            return str(self._normalise(text)).strip() or text
        except Exception:  # the grammars' library raises what it likes on odd characters
            return text
