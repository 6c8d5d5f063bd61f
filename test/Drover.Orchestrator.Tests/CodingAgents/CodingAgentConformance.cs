using Drover.Orchestrator.CodingAgents;

namespace Drover.Orchestrator.Tests.CodingAgents;

/// <summary>What every agent must do, whatever its program. A subclass says how its program is made to behave.</summary>
public abstract class CodingAgentConformance : IDisposable
{
    private readonly ContainedTestFolder folder = new();

    public void Dispose()
    {
        folder.Dispose();
        GC.SuppressFinalize(this);
    }

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private protected abstract ICodingAgent Create(string root, TimeProvider time);

    /// <summary>The prompt that makes the program behave so: edit, fail, limit, crash, hang, stubborn, flood, conflict, daemonise, nothing, ansi.</summary>
    private protected abstract string PromptFor(string behaviour);

    private protected AgentRequest Request(string prompt) => new()
    {
        RunId = "run-1",
        TaskId = "task-7",
        Title = "A \"title\"; $(touch owned)",
        Attempt = 1,
        Worktree = folder.Worktree,
        Prompt = prompt,
        PromptPath = Path.Combine(folder.Root, "prompts", "task-7-1.md"),
        LogPath = Path.Combine(folder.Root, "logs", "task-7-1.log"),
        TmpDir = Path.Combine(folder.Root, "tmp", "task-7-1"),
        RunToken = folder.RunToken,
        StopGrace = TimeSpan.FromMilliseconds(500),
        Environment = ContainedEnvironment.FromProcess([]) with
        {
            Source = new Dictionary<string, string>(ContainedEnvironment.FromProcess([]).Source)
            {
                ["ANTHROPIC_API_KEY"] = "planted-secret-1",
                ["DROVER_DATABASE_URL"] = "postgresql://u:planted-secret-2@db/x",
                ["AWS_SECRET_ACCESS_KEY"] = "planted-secret-3",
            },
        },
    };

    private protected async Task<AgentReport> RunAsync(string behaviour, AgentHooks? hooks = null, TimeProvider? time = null, CancellationToken stop = default)
    {
        var agent = Create(folder.Root, time ?? TimeProvider.System);
        Assert.Null(agent.Check().Problem);
        var report = await agent.RunAsync(Request(PromptFor(behaviour)), hooks ?? new(), stop);
        Assert.Empty(report.Survivors);
        Assert.True(folder.NothingCarriesTheToken());
        Assert.False(File.Exists(Path.Combine(folder.Worktree, "owned")));
        return report;
    }

    private protected string[] Files() => [.. Directory.GetFiles(folder.Worktree).Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)];

    private protected string ReadFile(string name) => File.ReadAllText(Path.Combine(folder.Worktree, name));

    [Fact]
    public async Task Edits_and_a_repeated_turn_gives_the_same_files()
    {
        for (var turn = 0; turn < 2; turn++)
        {
            var report = await RunAsync("edit");
            Assert.Equal(AgentOutcome.Succeeded, report.Outcome);
            Assert.Equal(0, report.ExitCode);
            Assert.Equal(["made.txt"], Files());
            Assert.Equal("made text\n", ReadFile("made.txt"));
        }
    }

    [Fact]
    public async Task Does_nothing()
    {
        Assert.Equal(AgentOutcome.Succeeded, (await RunAsync("nothing")).Outcome);
        Assert.Empty(Files());
    }

    [Fact]
    public async Task Fails()
    {
        var report = await RunAsync("fail");
        Assert.Equal(AgentOutcome.Failed, report.Outcome);
        Assert.Equal(1, report.ExitCode);
        Assert.NotEqual("", report.Summary);
    }

    [Fact]
    public async Task Reaches_a_limit() => Assert.Equal(AgentOutcome.LimitReached, (await RunAsync("limit")).Outcome);

    [Fact]
    public async Task Crashes()
    {
        var report = await RunAsync("crash");
        Assert.Equal(AgentOutcome.Crashed, report.Outcome);
        Assert.Equal(Native.SigKill, report.Signal);
    }

    [Fact]
    public async Task D9_hangs_and_the_silence_clock_ends_it()
    {
        var time = new ManualTime();
        var report = await RunAsync("hang", new() { OnLine = line => { if (line.Text == "up") time.Advance(TimeSpan.FromMinutes(15)); } }, time);
        Assert.Equal(AgentOutcome.TimedOut, report.Outcome);
        Assert.Equal(ProcessEnd.SilenceClock, report.Clock);
    }

    [Theory]
    [InlineData("hang")]
    [InlineData("stubborn")]
    public async Task X09_stops_on_request_even_when_it_will_not(string behaviour)
    {
        using var stop = new CancellationTokenSource();
        var report = await RunAsync(behaviour, new() { OnLine = line => { if (line.Text == "up") stop.Cancel(); } }, stop: stop.Token);
        Assert.Equal(AgentOutcome.Interrupted, report.Outcome);
    }

    [Fact]
    public async Task X05_floods_into_a_log_and_a_bounded_tail()
    {
        var report = await RunAsync("flood");
        Assert.Equal(AgentOutcome.Succeeded, report.Outcome);
        Assert.True(report.Process!.OutputBytes >= 10 << 20);
        Assert.InRange(report.Tail.Length, 1, 64 * 1024);
    }

    [Fact]
    public async Task X02_daemonises_and_nothing_is_left()
    {
        var report = await RunAsync("daemonise");
        Assert.Equal(AgentOutcome.Succeeded, report.Outcome);
        Assert.True(report.Process!.LeftoversEnded >= 2, $"{report.Process.LeftoversEnded}");
    }

    [Fact]
    public async Task Makes_and_resolves_a_conflict()
    {
        await File.WriteAllTextAsync(Path.Combine(folder.Worktree, "shared.txt"), "line 1\nline 2\n", Token);
        await RunAsync("conflict");
        Assert.Equal("line 1 is changed by task-7\nline 2\n", ReadFile("shared.txt"));
        await File.WriteAllTextAsync(Path.Combine(folder.Worktree, "shared.txt"), "<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\nline 2\n", Token);
        await RunAsync("conflict");
        Assert.Equal("a\nb\nline 2\n", ReadFile("shared.txt"));
    }

    [Fact]
    public async Task L01_terminal_sequences_do_not_reach_the_summary()
    {
        var report = await RunAsync("ansi");
        Assert.Contains("\x1b]", report.Tail, StringComparison.Ordinal); // the log keeps raw bytes (L-02)
        Assert.Equal("red text", report.Summary);
    }

    [Fact]
    public async Task A_prompt_of_300_KB_arrives_whole()
    {
        var agent = Create(folder.Root, TimeProvider.System);
        var request = Request(string.Concat(Enumerable.Repeat("- some filler, ü and 漢\n", 12_000)) + "\n" + PromptFor("edit"));
        Assert.Equal(AgentOutcome.Succeeded, (await agent.RunAsync(request, new(), Token)).Outcome);
        Assert.Equal("made text\n", ReadFile("made.txt"));
        Assert.Equal(request.Prompt, await File.ReadAllTextAsync(request.PromptPath, Token));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(request.PromptPath));
    }

    [Fact]
    public async Task A_lost_keeper_is_reported_as_unknown()
    {
        ProcessIdentity? keeper = null;
        var report = await RunAsync("hang", new()
        {
            OnReady = identity => { keeper = identity; return Task.CompletedTask; },
            OnLine = line => { if (line.Text == "up") keeper!.Kill(); },
        });
        Assert.Equal(AgentOutcome.Unknown, report.Outcome);
    }
}

public sealed class FakeAgentTests : CodingAgentConformance
{
    private protected override ICodingAgent Create(string root, TimeProvider time) => AgentTypes.Create("fake", null, KeeperCommand.Default, time);

    private protected override string PromptFor(string behaviour) => "Some text\n" + behaviour switch
    {
        "edit" => "fake: edit made.txt \"made text\"",
        "hang" => "fake: print up\n  fake: hang",
        "stubborn" => "fake: print up\nfake: hang stubborn",
        "flood" => "fake: flood 10MB",
        "ansi" => "fake: print \"\\e]0;title\\e\\\\\\e[31mred\\e[0m text\"\nfake: exit 0",
        _ => $"fake: {behaviour}",
    };

    [Fact]
    public async Task Without_a_script_it_writes_a_file_named_after_the_task()
    {
        var agent = Create("", TimeProvider.System);
        var report = await agent.RunAsync(Request("Do it.\n> fake: fail\n"), new(), TestContext.Current.CancellationToken);
        Assert.Equal(AgentOutcome.Succeeded, report.Outcome);
        Assert.Equal(["fake-task-7.txt"], Files());
    }

    [Fact]
    public async Task Fails_only_in_the_attempts_named()
    {
        var agent = Create("", TimeProvider.System);
        var request = Request("fake: append log.txt \"a line\"\nfake: fail 2 times\nfake: append log.txt \"a line\"\nfake: append log.txt \"another\"");
        for (var attempt = 1; attempt <= 3; attempt++)
        {
            var report = await agent.RunAsync(request with { Attempt = attempt }, new(), TestContext.Current.CancellationToken);
            Assert.Equal(attempt <= 2 ? AgentOutcome.Failed : AgentOutcome.Succeeded, report.Outcome);
        }
        Assert.Equal("a line\nanother\n", ReadFile("log.txt"));
    }

    [Fact]
    public async Task It_can_wait_delete_commit_and_exit()
    {
        var worktree = Request("").Worktree;
        await System.Diagnostics.Process.Start("git", ["-c", "init.defaultBranch=trunk", "init", "--quiet", worktree]).WaitForExitAsync(TestContext.Current.CancellationToken);
        var agent = Create("", TimeProvider.System);
        var report = await agent.RunAsync(
            Request("fake: edit sub/a.txt \"one\"\nfake: edit b.txt \"\"\nfake: wait 10ms\nfake: delete b.txt\nfake: commit A fine message\nfake: exit 9"),
            new(), TestContext.Current.CancellationToken);
        Assert.Equal((AgentOutcome.Failed, 9), (report.Outcome, report.ExitCode));
        var start = new System.Diagnostics.ProcessStartInfo("git", ["-C", worktree, "log", "--format=%s", "--name-only"]) { RedirectStandardOutput = true };
        using var git = System.Diagnostics.Process.Start(start)!;
        Assert.Equal("A fine message\n\nsub/a.txt\n", await git.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken));
        await git.WaitForExitAsync(TestContext.Current.CancellationToken);
    }

    [Theory]
    [InlineData("edit ../out.txt \"x\"")]
    [InlineData("edit /tmp/out.txt \"x\"")]
    [InlineData("edit .git/config \"x\"")]
    [InlineData("dance")]
    public async Task C03_it_does_not_leave_its_worktree_and_refuses_what_it_does_not_know(string step)
    {
        var agent = Create("", TimeProvider.System);
        var report = await agent.RunAsync(Request($"fake: {step}"), new(), TestContext.Current.CancellationToken);
        Assert.NotEqual(AgentOutcome.Succeeded, report.Outcome);
        Assert.Empty(Files());
    }
}

public sealed class CommandAgentTests : CodingAgentConformance
{
    private const string Program = """
        #!/bin/sh
        behaviour=$(grep '^do: ' | tail -n 1 | cut -c5-)
        case "$behaviour" in
        edit) echo "made text" > made.txt; echo edited ;;
        nothing) ;;
        fail) echo "could not"; exit 1 ;;
        limit) exit 75 ;;
        crash) kill -KILL $$ ;;
        hang) echo up; sleep 3600 ;;
        stubborn) trap '' TERM; echo up; while :; do sleep 0.05; done ;;
        flood) head -c 10485760 /dev/zero | tr '\0' 'x' | fold -w 99 ;;
        conflict)
          if grep -q '^<<<<<<<' shared.txt; then sed -i '/^<<<<<<<\|^=======$\|^>>>>>>>/d' shared.txt
          else sed -i "1s/.*/line 1 is changed by $DROVER_TASK_ID/" shared.txt; fi ;;
        daemonise) (setsid sleep 3600 >/dev/null 2>&1 &); setsid sh -c 'sleep 3600; :' & ;;
        ansi) printf '\033]0;title\033\\\033[31mred\033[0m text\n' ;;
        facts) env > env.txt; pwd > pwd.txt; echo "the key is planted-secret-1, the url planted-secret-2" ;;
        esac
        """;

    private protected override ICodingAgent Create(string root, TimeProvider time)
    {
        var program = Path.Combine(root, "my agent.sh");
        File.WriteAllText(program, Program);
        File.SetUnixFileMode(program, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return AgentTypes.Create("command", program, KeeperCommand.Default, time);
    }

    private protected override string PromptFor(string behaviour) => $"Some text\ndo: {behaviour}\n";

    [Fact]
    public async Task A02_it_gets_the_facts_of_its_task_and_no_secret_of_the_operator()
    {
        var report = await RunAsync("facts");
        var request = Request("");
        var environment = ReadFile("env.txt").Split('\n');
        Assert.Contains("DROVER_TASK_ID=task-7", environment);
        Assert.Contains($"DROVER_TASK_TITLE={request.Title}", environment);
        Assert.Contains("DROVER_ATTEMPT=1", environment);
        Assert.Contains("DROVER_RUN_ID=run-1", environment);
        Assert.Contains($"DROVER_WORKTREE={request.Worktree}", environment);
        Assert.Contains($"TMPDIR={request.TmpDir}", environment);
        Assert.Equal(request.Worktree + "\n", ReadFile("pwd.txt"));
        Assert.DoesNotContain("planted-secret", ReadFile("env.txt"), StringComparison.Ordinal);
        Assert.Equal("the key is [redacted], the url [redacted]", report.Summary);
        Assert.DoesNotContain("planted-secret", await File.ReadAllTextAsync(request.LogPath, TestContext.Current.CancellationToken), StringComparison.Ordinal);
    }
}
