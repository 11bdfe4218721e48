"""The command line: parse, then call. Commands import their room when they run, so that --help is instant."""
