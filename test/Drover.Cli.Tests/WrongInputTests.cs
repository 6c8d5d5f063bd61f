namespace Drover.Cli.Tests;

/// <summary>Wrong input: one line that names the thing and the fix, the exit code of the table, and nothing changed.</summary>
[Trait("Speed", "slow")]
public sealed class WrongInputTests
{
    /// <summary>One row: where it is tried, what is typed, and what must come back.</summary>
    public sealed record Row(string Name, int ExitCode, string[] Says, string[] Arguments, Action<DroverProgram>? Prepare = null, bool Git = true, bool Commit = true, bool Init = true)
    {
        public override string ToString() => Name;
    }

    private static readonly Row[] Table =
    [
        // Usage.
        new("unknown command", 2, ["no command 'statuss'", "did you mean status?", "drover --help"], ["statuss"]),
        new("unknown option", 2, ["no option '--worker'", "did you mean --workers?", "drover run --help"], ["run", "--worker", "2"]),
        new("missing argument", 2, ["title", "drover add --help"], ["add"]),
        new("one argument too many", 2, ["no argument 'b'", "drover add --help"], ["add", "a", "b"]),
        new("sub-command missing", 2, ["drover epic --help"], ["epic"]),
        new("two forms of status", 2, ["--oneline", "leave one"], ["status", "--oneline", "--json"]),
        new("a resolve without an answer", 2, ["--accept", "--continue", "--abandon"], ["resolve", "task-x"]),
        new("a resolve with two answers", 2, ["exactly one"], ["resolve", "task-x", "--accept", "--abandon"]),
        // No project, and repositories that cannot be one.
        new("no project: add", 3, ["no .drover folder", "drover init"], ["add", "Write the parser"], Init: false),
        new("no project: status", 3, ["no .drover folder", "drover init"], ["status"], Init: false),
        new("no project: run", 3, ["no .drover folder", "drover init"], ["run"], Init: false),
        new("not a git repository: init", 2, ["not a git repository", "git init"], ["init"], Git: false, Init: false),
        new("not a git repository: run", 2, ["not a git repository", "git init"], ["run"], p => Directory.Move(Path.Combine(p.Root, ".git"), p.Root + ".moved")),
        new("no commits", 2, ["no commits", "git commit"], ["init"], Commit: false, Init: false),
        new("bare repository", 2, ["bare repository", "git clone"], ["init"], p => p.Git("init", "--quiet", "--bare", "."), Git: false, Init: false),
        new("detached HEAD without --target", 2, ["detached", "--target <branch>"], ["init"], p => p.Git("checkout", "--quiet", "--detach"), Init: false),
        new("detached HEAD and no target set", 2, ["detached", "--target <branch>"], ["run"], p => { p.Add("Write the parser"); p.Run("config", "unset", "target").Ok(); p.Git("checkout", "--quiet", "--detach"); }),
        new("target that does not exist", 3, ["branch nowhere does not exist", "--target"], ["init", "--target", "nowhere"], Init: false),
        new("another target on repeating init", 4, ["trunk", "drover config set target other"], ["init", "--target", "other"], p => p.Git("branch", "other")),
        new("no identity", 2, ["git config --global user.name", "user.email"], ["run"], p => { p.Add("Write the parser"); p.Git("config", "--unset", "user.name"); }),
        // Ids.
        new("unknown task: info", 3, ["no task 'task-zzzz'", "drover status"], ["info", "task-zzzz"]),
        new("unknown task: cancel", 3, ["no task 'task-zzzz'"], ["cancel", "task-zzzz"]),
        new("unknown task: retry", 3, ["no task 'task-zzzz'"], ["retry", "task-zzzz"]),
        new("unknown task: resolve", 3, ["no task 'task-zzzz'"], ["resolve", "task-zzzz", "--accept"]),
        new("unknown blocker", 3, ["no task 'task-zzzz'"], ["add", "Write the parser", "--blocked-by", "task-zzzz"]),
        new("unknown parent", 3, ["no task 'task-zzzz'"], ["add", "Write the parser", "--parent", "task-zzzz"]),
        new("unknown epic: add", 3, ["no epic 'epic-zzzz'", "drover epic list"], ["add", "Write the parser", "--epic", "epic-zzzz"]),
        new("unknown epic: run", 3, ["no epic 'epic-zzzz'"], ["run", "--epic", "epic-zzzz"]),
        new("unknown epic: status", 3, ["no epic 'epic-zzzz'"], ["status", "--epic", "epic-zzzz"]),
        new("an id that is none", 2, ["is not an id"], ["add", "Write the parser", "--blocked-by", "../x"]),
        new("self-blocking", 2, ["task-one.1 cannot be blocked by itself", "--blocked-by"], ["add", "task-one.1 Write the parser", "--blocked-by", "task-one.1"], One),
        new("a cycle", 2, ["wait for each other", "task-one", "task-one.1"], ["add", "task-one.1 Write the parser", "--blocked-by", "task-one"], One),
        new("a cycle of an import", 2, ["b.jsonl:", "wait for each other"], ["import-jsonl", "b.jsonl"], p => Lines(p, "b.jsonl",
            """{"id":"a","type":"task","title":"A","blocked_by":["b"]}""", """{"id":"b","type":"task","title":"B","blocked_by":["a"]}""")),
        new("an id twice", 4, ["task-one.1 exists already", "task-one.2"], ["add", "task-one.1 Write the lexer"], p => { One(p); p.Run("add", "task-one.1 Write the parser").Ok(); }),
        // Values.
        new("empty title", 2, ["the title is empty"], ["add", ""]),
        new("blank title", 2, ["the title is empty"], ["add", "   "]),
        new("empty epic title", 2, ["the title is empty"], ["epic", "add", ""]),
        new("control character in a title", 2, ["control character U+001B"], ["add", "red \x1b[31m title"]),
        new("a title that says nothing", 2, ["does not say what to do", "--skip-validation"], ["add", "fix bugs"]),
        new("priority that is no number", 2, ["--priority", "'high' is not a whole number"], ["add", "Write the parser", "--priority", "high"]),
        new("test command with an open quote", 2, ["open \" quote"], ["add", "Write the parser", "--test-command", "sh -c \"true"]),
        new("--workers 0", 2, ["--workers", "'0'", "from 1 to 256"], ["run", "--workers", "0"]),
        new("--workers many", 2, ["--workers", "'many'"], ["run", "-w", "many"]),
        new("--max-attempts 0", 2, ["--max-attempts", "'0'"], ["run", "--max-attempts", "0"]),
        new("DROVER_WORKERS that is no number", 2, ["DROVER_WORKERS", "'lots'"], ["run"], p => p.Environment["DROVER_WORKERS"] = "lots"),
        new("a variable that is no duration", 2, ["DROVER_TASK_TIMEOUT", "'10 minutes'", "10m"], ["status"], p => p.Environment["DROVER_TASK_TIMEOUT"] = "10 minutes"),
        new("unknown agent type", 2, ["DROVER_AGENT_TYPE", "'claud'", "fake"], ["run"], p => p.Environment["DROVER_AGENT_TYPE"] = "claud"),
        new("agent without a program", 2, ["DROVER_AGENT_PATH", "agent.path"], ["run"], p => p.Environment["DROVER_AGENT_TYPE"] = "command"),
        new("missing agent program", 2, ["no-such-agent", "is not there"], ["run"], p => { p.Environment["DROVER_AGENT_TYPE"] = "command"; p.Environment["DROVER_AGENT_PATH"] = "no-such-agent"; }),
        new("no test command", 2, ["no test command", "drover config set testCommand"], ["run"], p => { p.Add("Write the parser"); p.Run("config", "unset", "testCommand").Ok(); }),
        new("test command's program is missing", 2, ["no-such-test", "not found"], ["run"], p => { p.Add("Write the parser"); p.Run("config", "set", "testCommand", "no-such-test --all").Ok(); }),
        new("unknown setting", 2, ["'testcommand'", "did you mean testCommand?"], ["config", "set", "testcommand", "true"]),
        new("bad setting", 2, ["timeouts.task", "'soon'"], ["config", "set", "timeouts.task", "soon"]),
        new("bad setting in the file", 2, [".drover/config.json", "worker", "did you mean workers?"], ["status"],
            p => File.WriteAllText(p.InState("config.json"), File.ReadAllText(p.InState("config.json")).Replace("\"target\"", "\"worker\": 3, \"target\"", StringComparison.Ordinal))),
        new("torn settings file", 2, [".drover/config.json", "line 2"], ["status"], p => File.WriteAllText(p.InState("config.json"), "{\n  \"project\":")),
        // Databases.
        new("mysql", 2, ["--database", "mysql://", "sqlite:///"], ["status", "--database", "mysql://localhost/db"]),
        new("no address", 2, ["--database", "sqlite:///"], ["status", "--database", "drover.db"]),
        new("PostgreSQL variable", 2, ["this version runs on SQLite", "unset DBOS_SYSTEM_DATABASE_URL", "--database sqlite:///"], ["run"],
            p => p.Environment["DBOS_SYSTEM_DATABASE_URL"] = "postgresql://user:hidden@localhost/db"),
        new("hidden backlog", 2, ["--database", "would hide", "leave --database out"], ["status", "--database", "sqlite:///other.db"], p => p.Add("Write the parser")),
        new("database that is missing", 3, ["no database", "drover init"], ["status"], p => { foreach (string f in Directory.GetFiles(p.InState(""), "drover.db*")) File.Delete(f); }),
        new("unreadable database: status", 5, ["drover.db"], ["status"], Garbage),
        new("unreadable database: add", 5, ["drover.db"], ["add", "Write the parser"], Garbage),
        new("newer database: status", 5, ["version 99", "install the newer drover"], ["status"], Newer),
        new("newer database: add", 5, ["version 99", "install the newer drover"], ["add", "Write the parser"], Newer),
        new("newer database: run", 5, ["version 99", "install the newer drover"], ["run"], Newer),
        new("a database of another program", 5, ["another program"], ["status"], p => { foreach (string f in Directory.GetFiles(p.InState(""), "drover.db*")) File.Delete(f); Sqlite(p, "CREATE TABLE t (x)"); }),
        // Imports.
        new("import of a missing file", 3, ["no file nowhere.jsonl"], ["import-jsonl", "nowhere.jsonl"]),
        new("malformed JSONL", 2, ["b.jsonl:2:", "JSON"], ["import-jsonl", "b.jsonl"], p => Lines(p, "b.jsonl", """{"type":"task","title":"Good"}""", """{"type":"task","title":}""")),
        new("JSONL with an unknown field", 2, ["b.jsonl:2:", "titel"], ["import-jsonl", "b.jsonl"], p => Lines(p, "b.jsonl", """{"type":"task","title":"Good"}""", """{"type":"task","titel":"Bad"}""")),
        new("JSONL with an unknown blocker", 3, ["b.jsonl:2:", "nobody"], ["import-jsonl", "b.jsonl"],
            p => Lines(p, "b.jsonl", """{"type":"task","title":"Good"}""", """{"type":"task","title":"Bad","blocked_by":["nobody"]}""")),
    ];

    public static TheoryData<string> Names => [.. Table.Select(r => r.Name)];

    [Theory]
    [MemberData(nameof(Names))]
    public void C02_wrong_input_is_one_line_with_its_exit_code_and_changes_nothing(string name)
    {
        Row row = Table.Single(r => r.Name == name);
        using var program = new DroverProgram(row.Git, row.Commit, row.Init);
        row.Prepare?.Invoke(program);
        IReadOnlyDictionary<string, string> before = program.Fingerprint();

        Answer answer = program.Run(row.Arguments);

        Assert.True(answer.ExitCode == row.ExitCode, $"exit code {answer.ExitCode}, not {row.ExitCode}\n{answer.Output}\n{answer.Error}");
        string line = Assert.Single(answer.ErrorLines);
        Assert.StartsWith("drover: ", line, StringComparison.Ordinal);
        Assert.All(row.Says, text => Assert.Contains(text, line, StringComparison.Ordinal));
        Assert.DoesNotContain("hidden", line.Replace("would hide", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.Equal("", answer.Output);
        Assert.Equal(before, program.Fingerprint());
    }

    [Theory]
    [InlineData("status", 5, "drover.db")]
    [InlineData("add", 5, "drover.db")]
    [InlineData("config", 2, "config.json")]
    [InlineData("init", 2, "permissions")]
    public void C02_a_read_only_folder_is_one_line_and_changes_nothing(string command, int exitCode, string says)
    {
        using var program = new DroverProgram(init: command != "init");
        if (program.NobodyProgram() is not { } nobody)
        {
            Assert.Skip("the tests run as root, who may write everywhere, and the program cannot be started as another user here");
            return;
        }
        IReadOnlyDictionary<string, string> before = program.Fingerprint();
        program.TakeWriteAway();
        string[] arguments = command switch
        {
            "add" => ["add", "Write the parser"],
            "config" => ["config", "set", "workers", "5"],
            _ => [command],
        };

        Answer answer = DroverProgram.Finish(nobody(arguments));

        Assert.True(answer.ExitCode == exitCode, $"exit code {answer.ExitCode}\n{answer.Output}\n{answer.Error}");
        Assert.Contains(says, Assert.Single(answer.ErrorLines), StringComparison.Ordinal);
        Assert.Equal(before, program.Fingerprint());
    }

    private static void One(DroverProgram program)
    {
        Lines(program, "one.jsonl", """{"id":"task-one","type":"task","title":"The first task"}""");
        program.Run("import-jsonl", "one.jsonl").Ok();
    }

    private static void Lines(DroverProgram program, string name, params string[] lines) => File.WriteAllLines(Path.Combine(program.Root, name), lines);

    private static void Garbage(DroverProgram program)
    {
        foreach (string file in Directory.GetFiles(program.InState(""), "drover.db*"))
            File.Delete(file);
        File.WriteAllText(program.InState("drover.db"), new string('x', 8192));
    }

    private static void Newer(DroverProgram program) => Sqlite(program, "UPDATE drover_migrations SET version = 99 WHERE component = 'orchestrator'");

    private static void Sqlite(DroverProgram program, string sql)
    {
        // As the program opens it, so that the journal stays as it is.
        Drover.Workflows.Sqlite.NativeLibraryChoice.Version.ToString();
        using var connection = new Microsoft.Data.Sqlite.SqliteConnection($"Data Source={program.InState("drover.db")};Pooling=False");
        connection.Open();
        using var command = connection.CreateCommand();
        command.CommandText = sql;
        command.ExecuteNonQuery();
    }
}
