"""Parses SQL files with PostgreSQL's own parser, and the PL/pgSQL in them; prints what fails as file:line."""

import sys

import pglast


def problems(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        statements = pglast.parse_sql(text)
    except pglast.parser.ParseError as error:
        # the second argument is an offset into the text, from 0
        offset = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0
        yield text.count("\n", 0, offset) + 1, error.args[0]
        return
    for statement in statements:
        node = type(statement.stmt).__name__
        if node not in ("CreateFunctionStmt", "DoStmt"):
            continue
        start = statement.stmt_location
        body = text[start : start + statement.stmt_len if statement.stmt_len else None]
        if node == "CreateFunctionStmt" and "plpgsql" not in body.lower():
            continue
        try:
            pglast.parse_plpgsql(body)
        except pglast.parser.ParseError as error:
            # where the body is wrong is not told in a way that fits the file: name the statement
            blank = len(body) - len(body.lstrip())
            yield text.count("\n", 0, start + blank) + 1, error.args[0]


def main(paths):
    failed = False
    for path in paths:
        for line, message in problems(path):
            failed = True
            print(f"{path}:{line}: {message}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
