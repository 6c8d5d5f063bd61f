using System.Text.Json;

namespace Drover.Cli.Tests;

/// <summary>init, epic, add, status, info, cancel, retry, import-jsonl and config: what they print and what they change.</summary>
public sealed class BacklogCommandTests
{
    [Fact]
    public void Init_makes_a_private_project_and_repeating_it_changes_nothing()
    {
        using var program = new DroverProgram(init: false);
        File.WriteAllText(Path.Combine(program.Root, "Makefile"), "test:\n\ttrue\n");
        Answer first = program.Run("init");
        first.Ok();
        Assert.Contains("Created a Drover project", first.Output, StringComparison.Ordinal);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, File.GetUnixFileMode(program.InState("")));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(program.InState("drover.db")));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(program.InState("config.json")));
        Assert.Equal("?? Makefile\n", program.Git("status", "--porcelain"));
        IReadOnlyDictionary<string, string> before = program.Fingerprint();

        JsonElement again = program.Run("init", "--json").Ok().Json;

        Assert.False(again.GetProperty("created").GetBoolean());
        Assert.Equal("trunk", again.GetProperty("target").GetString());
        Assert.Equal("make test", again.GetProperty("testCommand").GetString());
        Assert.Equal(before, program.Fingerprint());
    }

    [Fact]
    public void Init_says_that_hooks_exist_and_works_from_a_sub_folder_of_a_repository_without_a_template()
    {
        using var program = new DroverProgram(git: false, init: false);
        program.Git("init", "--quiet", "--initial-branch=trunk", "--template=");
        program.Git("config", "user.name", "Test");
        program.Git("config", "user.email", "test@example.invalid");
        program.Git("commit", "--quiet", "--allow-empty", "--message", "start");
        string hook = Directory.CreateDirectory(Path.Combine(program.Root, ".git", "hooks")).FullName + "/pre-commit";
        File.WriteAllText(hook, "#!/bin/sh\nexit 1\n");
        File.SetUnixFileMode(hook, UnixFileMode.UserRead | UnixFileMode.UserExecute | UnixFileMode.UserWrite);
        string below = Directory.CreateDirectory(Path.Combine(program.Root, "deep", "er")).FullName;

        Answer answer = program.RunIn(below, "init").Ok();

        Assert.Contains("pre-commit", answer.Error, StringComparison.Ordinal);
        Assert.Contains("none yet", answer.Output, StringComparison.Ordinal);
        Assert.True(File.Exists(program.InState("drover.db")));
        program.RunIn(below, "add", "Write the parser").Ok();
        Assert.Equal("0 running, 1 queued, 0 completed, 0 blocked\n", program.RunIn(below, "status", "--oneline").Ok().Output);
    }

    [Fact]
    public void Commands_work_in_a_linked_worktree_of_the_user()
    {
        using var program = new DroverProgram();
        string linked = program.Root + "-linked";
        program.Git("worktree", "add", "--quiet", linked, "-b", "feature");
        string task = program.RunIn(linked, "add", "Write the parser", "--json").Ok().Json.GetProperty("id").GetString()!;
        Assert.Equal("ready", program.StatusOf(task));
        Assert.Contains("Already a Drover project", program.RunIn(linked, "init").Ok().Output, StringComparison.Ordinal);
    }

    [Fact]
    public void Add_and_status_print_the_documented_shapes()
    {
        using var program = new DroverProgram();
        JsonElement epic = program.Run("epic", "add", "Payments", "-d", "All about money", "--json").Ok().Json;
        string epicId = epic.GetProperty("id").GetString()!;
        Assert.Matches("^Created epic epic-[a-z0-9]+: Search\n$", program.Run("epic", "add", "Search").Ok().Output);
        string first = program.Add("Write the parser", "--epic", epicId, "--priority", "7");
        JsonElement second = program.Run("add", "Write the printer", "-d", "Written by a test", "-e", epicId, "--blocked-by", first, "--test-command", "true", "--json").Ok().Json;
        string secondId = second.GetProperty("id").GetString()!;
        Assert.Matches("^Created task task-[a-z0-9]+: Write the docs\n$", program.Run("add", "Write the docs").Ok().Output);
        Assert.Equal(first + ".1", program.Add("A part of the parser", "--parent", first));
        Assert.Equal(first + ".4", program.Run("add", first + ".4 Another part", "--json").Ok().Json.GetProperty("id").GetString());

        Assert.Equal(["id", "title", "status", "reason", "attempts", "epic", "blockedBy", "landed"], second.EnumerateObject().Select(p => p.Name));
        Assert.Equal("blocked", second.GetProperty("status").GetString());
        Assert.Equal([first], second.GetProperty("blockedBy").EnumerateArray().Select(b => b.GetString()));
        Assert.Equal(JsonValueKind.Null, second.GetProperty("landed").ValueKind);

        JsonElement status = program.Run("status", "--json").Ok().Json;
        Assert.Equal(["target", "counts", "tasks"], status.EnumerateObject().Select(p => p.Name));
        Assert.Equal("trunk", status.GetProperty("target").GetString());
        Assert.Equal(["ready", "blocked", "unreachable", "claimed", "in_progress", "paused", "completed", "failed", "cancelled"],
            status.GetProperty("counts").EnumerateObject().Select(p => p.Name));
        Assert.Equal(5, status.GetProperty("tasks").GetArrayLength());
        Assert.Equal("0 running, 3 queued, 0 completed, 2 blocked\n", program.Run("status", "--oneline").Ok().Output);

        string[] tree = program.Run("status", "--tree").Ok().Output.Split('\n');
        Assert.Equal($"{epicId} Payments  0/2", tree[0]);
        Assert.StartsWith($"├─ · {first} Write the parser [blocked]", tree[1], StringComparison.Ordinal);
        Assert.StartsWith($"│  ├─ ○ {first}.1 A part of the parser [ready]", tree[2], StringComparison.Ordinal);
        Assert.StartsWith($"└─ · {secondId} Write the printer [blocked]", tree[4], StringComparison.Ordinal);
        Assert.Equal(2, program.Run("epic", "list", "--json").Ok().Json.GetArrayLength());
        Assert.Equal(JsonValueKind.Array, program.Run("status", "--tree", "--json").Ok().Json.ValueKind);
    }

    [Fact]
    public void Info_cancel_retry_and_resolve_show_what_they_did()
    {
        using var program = new DroverProgram();
        string task = program.Add("Write the parser");
        Assert.Contains("Write the parser", program.Run("info", task).Ok().Output, StringComparison.Ordinal);
        JsonElement info = program.Run("info", task, "--json").Ok().Json;
        Assert.Equal("task.created", info.GetProperty("events")[0].GetProperty("type").GetString());

        Assert.Equal($"Cancelled {task}: Write the parser\n", program.Run("cancel", task, "--reason", "not wanted").Ok().Output);
        Assert.Equal($"{task} was cancelled before\n", program.Run("cancel", task).Ok().Output);
        Assert.Equal("ready", program.Run("retry", task, "--json").Ok().Json.GetProperty("status").GetString());
        Answer resolved = program.Run("resolve", task, "--accept");
        Assert.Equal(4, resolved.ExitCode);
        Assert.Contains($"{task} is open", resolved.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void C04_an_import_is_all_or_nothing_and_says_what_it_created()
    {
        using var program = new DroverProgram();
        File.WriteAllLines(Path.Combine(program.Root, "b.jsonl"),
        [
            "# the backlog",
            """{"id":"e","type":"epic","title":"Payments"}""",
            """{"id":"a","type":"task","title":"First","epic_id":"e","blocked_by":["b"]}""",
            """{"id":"b","type":"task","title":"Second","epic_id":"e","priority":"high"}""",
        ]);
        Answer answer = program.Run("import-jsonl", "b.jsonl").Ok();
        Assert.EndsWith("Imported 1 epic(s), 2 task(s), 1 dependency(ies)\n", answer.Output, StringComparison.Ordinal);
        Assert.Equal("0 running, 1 queued, 0 completed, 1 blocked\n", program.Run("status", "--oneline").Ok().Output);
        Assert.Equal(2, program.Run("import-jsonl", "b.jsonl", "--json").Ok().Json.GetProperty("tasks").GetInt32());
    }

    [Fact]
    public void Config_shows_where_a_value_comes_from()
    {
        using var program = new DroverProgram();
        Assert.Equal("workers = 5  (.drover/config.json)\n", program.Run("config", "set", "workers", "5").Ok().Output);
        program.Environment["DROVER_WORKERS"] = "6";
        JsonElement shown = program.Run("config", "show", "--json").Ok().Json;
        JsonElement workers = shown.GetProperty("settings").EnumerateArray().Single(s => s.GetProperty("key").GetString() == "workers");
        Assert.Equal(("6", "DROVER_WORKERS"), (workers.GetProperty("value").GetString(), workers.GetProperty("source").GetString()));
        Assert.EndsWith("drover.db", shown.GetProperty("database").GetProperty("path").GetString(), StringComparison.Ordinal);
        program.Environment.Remove("DROVER_WORKERS");
        Assert.Equal("workers", program.Run("config", "unset", "workers", "--json").Ok().Json.GetProperty("key").GetString());
        Assert.Contains("note: there is a .drover.toml", WithToml(program).Error, StringComparison.Ordinal);
    }

    [Fact]
    [Trait("Speed", "slow")]
    public async Task Fifty_writers_at_once_lose_nothing_and_see_no_lock()
    {
        using var program = new DroverProgram();
        string blocker = program.Add("Write the parser");
        // In groups, for small machines: each is a process of its own.
        foreach (int[] group in Enumerable.Range(0, 50).Chunk(10))
        {
            Answer[] answers = await Task.WhenAll(group.Select(n => Task.Run(() => program.Run("add", $"Write the printer number {n}", "--blocked-by", blocker))));
            Assert.All(answers, a => a.Ok());
        }
        Assert.Equal("0 running, 1 queued, 0 completed, 50 blocked\n", program.Run("status", "--oneline").Ok().Output);
    }

    [Fact]
    public void L01_foreign_text_is_harmless_on_the_terminal_and_escaped_in_json()
    {
        using var program = new DroverProgram();
        string task = program.Add("Write the \u202e parser");
        Answer plain = program.Run("status", "--tree").Ok();
        Assert.DoesNotContain('\u202e', plain.Output);
        Assert.Contains("\\u202E", program.Run("info", task, "--json").Ok().Output, StringComparison.Ordinal);
        Answer error = program.Run("info", "\x1b]0;title\a task");
        Assert.DoesNotContain('\x1b', error.Error);
    }

    [Fact]
    public void L04_doctor_finds_what_is_missing_and_shows_no_environment()
    {
        using var program = new DroverProgram();
        program.Environment["SECRET_TOKEN"] = "hunter2";
        JsonElement good = program.Run("doctor", "--json").Ok().Json;
        Assert.True(good.GetProperty("ok").GetBoolean());
        program.Environment["DROVER_AGENT_TYPE"] = "command";
        program.Environment["DROVER_AGENT_PATH"] = "no-such-agent";
        Answer bad = program.Run("doctor");
        Assert.Equal(1, bad.ExitCode);
        Assert.Contains("✗ agent", bad.Output, StringComparison.Ordinal);
        Assert.Contains("no-such-agent", bad.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("hunter2", bad.Output + bad.Error, StringComparison.Ordinal);
    }

    [Fact]
    public void Colour_is_for_terminals_that_want_it()
    {
        using var program = new DroverProgram();
        program.Add("Write the parser");
        Assert.DoesNotContain('\x1b', program.Run("status", "--tree").Ok().Output);
        program.Environment["TERM"] = "xterm-256color";
        Assert.Contains("\x1b[2m", OnTerminal(program), StringComparison.Ordinal);
        program.Environment["NO_COLOR"] = "1";
        Assert.DoesNotContain("\x1b[2m", OnTerminal(program), StringComparison.Ordinal);
    }

    private static string OnTerminal(DroverProgram program)
    {
        System.Diagnostics.ProcessStartInfo start = program.StartInfo(program.Root, "status", "--tree");
        string command = string.Join(' ', start.ArgumentList.Prepend(start.FileName).Select(a => $"'{a}'"));
        start.FileName = "script";
        start.ArgumentList.Clear();
        foreach (string argument in (string[])["-q", "-e", "-c", command, "/dev/null"])
            start.ArgumentList.Add(argument);
        return DroverProgram.Finish(start).Ok().Output;
    }

    private static Answer WithToml(DroverProgram program)
    {
        File.WriteAllText(Path.Combine(program.Root, ".drover.toml"), "max_workers = 1\n");
        return program.Run("config", "show").Ok();
    }
}
