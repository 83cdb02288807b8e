"""XML of strangers -> elements.  A document type that declares anything is refused, and with it any entity: a
few lines of them can expand to gigabytes or name files of this host.  So are control characters, which would
go on to terminals and to other files.  One that is only named is passed over: nothing is loaded."""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from ringfence.core.errors import ConfigError

DEEPEST = 32


def parse_xml(file: str, data: bytes) -> Element:
    """The root.  Raises ConfigError: one line with the file's and the line's number."""
    parser, builder, depth = expat.ParserCreate(), TreeBuilder(), 0

    def refuse(*_: object) -> None:
        raise ConfigError(
            f"{file} line {parser.CurrentLineNumber} declares a document type or an entity: not read",
            next="remove the declaration",
        )

    def doctype(name: str, system: str | None, public: str | None, declares: bool) -> None:
        if declares:
            refuse()

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise ConfigError(f"{file} line {parser.CurrentLineNumber} is nested too deep", next="mend it")
        if not all(value.isprintable() for value in attributes.values()):
            raise ConfigError(
                f"{file} line {parser.CurrentLineNumber} holds control characters", next="remove them"
            )
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler, parser.EntityDeclHandler = doctype, refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ConfigError(
            f"{file} line {error.lineno}: {expat.ErrorString(error.code)}", next="mend the XML"
        ) from None
    except (LookupError, ValueError):  # an encoding that Python does not have, or not for this
        raise ConfigError(f"{file} has an encoding that is not known", next="save it as UTF-8") from None
    return builder.close()
