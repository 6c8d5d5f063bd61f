using Drover.Orchestrator.CodingAgents;
using Drover.Orchestrator.Gates;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.CodingAgents;

public sealed class GateTests : IDisposable
{
    private readonly ContainedTestFolder folder = new();

    public void Dispose() => folder.Dispose();

    private GateRequest Request(string command) => new()
    {
        Command = GateCommand.Parse(command),
        Folder = folder.Worktree,
        LogPath = Path.Combine(folder.Root, "logs", "gate.log"),
        TmpDir = Path.Combine(folder.Root, "tmp", "gate"),
        RunToken = folder.RunToken,
        Environment = new(new Dictionary<string, string>(folder.Environment) { ["ANTHROPIC_API_KEY"] = "planted-secret" }, []),
    };

    private static Task<GateResult> RunAsync(GateRequest request, ProcessHooks? hooks = null, TimeProvider? time = null, CancellationToken stop = default) =>
        GateRunner.RunAsync(request, hooks ?? new(), time ?? TimeProvider.System, stop == default ? TestContext.Current.CancellationToken : stop);

    [Theory]
    [InlineData("dotnet test", new[] { "dotnet", "test" })]
    [InlineData("  go   test ./... ", new[] { "go", "test", "./..." })]
    [InlineData("a 'b c' \"d e\" f\\ g ''", new[] { "a", "b c", "d e", "f g", "" })]
    [InlineData("dotnet test --filter \"A!=B&C|D\"", new[] { "dotnet", "test", "--filter", "A!=B&C|D" })]
    [InlineData("run 'a $HOME; `x`'", new[] { "run", "a $HOME; `x`" })]
    public void C01_a_plain_command_is_an_argument_list(string text, string[] argv)
    {
        var command = GateCommand.Parse(text);
        Assert.Equal(argv, command.Argv);
        Assert.False(command.UsesShell);
    }

    [Theory]
    [InlineData("make && make test")]
    [InlineData("a | b")]
    [InlineData("ls *.txt")]
    [InlineData("echo \"$HOME\"")]
    [InlineData("CI=1 npm test")]
    [InlineData("a\nb")]
    public void C01_what_needs_a_shell_gets_one_and_says_so(string text)
    {
        var command = GateCommand.Parse(text);
        Assert.Equal(["/bin/sh", "-c", text], command.Argv);
        Assert.True(command.UsesShell);
    }

    [Theory]
    [InlineData("")]
    [InlineData("a 'b")]
    [InlineData("a \x1b[31m")]
    [InlineData("a\0b")]
    public void C02_a_command_that_cannot_be_read_is_bad_input(string text) =>
        Assert.Equal(ErrorCode.InvalidInput, Assert.Throws<DroverException>(() => GateCommand.Parse(text)).Code);

    [Theory]
    [InlineData("App.slnx", "", "dotnet test")]
    [InlineData("package.json", "{\"scripts\":{\"test\":\"jest\"}}", "npm test")]
    [InlineData("package.json", "{\"scripts\":{\"test\":\"echo \\\"Error: no test specified\\\" && exit 1\"}}", null)]
    [InlineData("package.json", "not json", null)]
    [InlineData("Cargo.toml", "", "cargo test")]
    [InlineData("go.mod", "", "go test ./...")]
    [InlineData("pyproject.toml", "", "python3 -m pytest")]
    [InlineData("Makefile", "all:\n\ntest: all\n\ttrue\n", "make test")]
    [InlineData("Makefile", "all:\n", null)]
    [InlineData("README.md", "", null)]
    public void A_project_of_a_known_kind_has_a_test_command(string file, string content, string? command)
    {
        File.WriteAllText(Path.Combine(folder.Worktree, file), content);
        Assert.Equal(command, GateCommand.Detect(folder.Worktree)?.Text);
    }

    [Fact]
    public async Task A_passing_and_a_failing_command_are_told_apart()
    {
        var passed = await RunAsync(Request("true"));
        Assert.True(passed.Passed);
        Assert.Null(passed.Problem);
        var failed = await RunAsync(Request("echo broken >&2; exit 3"));
        Assert.Equal(GateVerdict.Failed, failed.Verdict);
        Assert.Equal(3, failed.ExitCode);
        Assert.Equal("broken", failed.Tail);
        Assert.Equal("exit code 3", failed.Problem);
        Assert.Contains("broken", await File.ReadAllTextAsync(failed.LogPath, TestContext.Current.CancellationToken), StringComparison.Ordinal);
        var crashed = await RunAsync(Request("kill -SEGV $$"));
        Assert.Equal((GateVerdict.Failed, 11), (crashed.Verdict, crashed.Signal));
    }

    [Fact]
    public async Task A_command_that_cannot_run_is_no_evidence_against_the_tree()
    {
        var result = await RunAsync(Request("no-such-test-runner --all"));
        Assert.Equal(GateVerdict.Broken, result.Verdict);
        Assert.Contains("no-such-test-runner", result.Problem, StringComparison.Ordinal);
        Assert.Null(Request("no-such-test-runner").Command.FindProgram(folder.Worktree, folder.Environment["PATH"]));
    }

    [Fact]
    public async Task A_program_in_the_tested_folder_can_be_the_command()
    {
        var script = Path.Combine(folder.Worktree, "check.sh");
        await File.WriteAllTextAsync(script, "#!/bin/sh\npwd\n", TestContext.Current.CancellationToken);
        File.SetUnixFileMode(script, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        var result = await RunAsync(Request("./check.sh"));
        Assert.True(result.Passed, result.Problem);
        Assert.Equal(folder.Worktree, result.Tail);
    }

    [Fact]
    public async Task A02_no_credential_and_no_operator_input_reach_a_gate()
    {
        var result = await RunAsync(Request("env; cat; echo planted-\"\"secret"));
        Assert.DoesNotContain("planted-secret", result.Tail, StringComparison.Ordinal);
        Assert.DoesNotContain("ANTHROPIC", result.Tail, StringComparison.Ordinal);
        Assert.Contains("[redacted]", result.Tail, StringComparison.Ordinal);
    }

    [Fact]
    public async Task D9_a_gate_that_takes_too_long_failed_and_leaves_nothing()
    {
        var time = new ManualTime();
        var result = await RunAsync(Request("(setsid sleep 3600 &) ; echo up; sleep 3600"), new() { OnLine = _ => time.Advance(TimeSpan.FromMinutes(61)) }, time);
        Assert.Equal((GateVerdict.Failed, ProcessEnd.TotalClock), (result.Verdict, result.Clock));
        Assert.True(folder.NothingCarriesTheToken());
    }

    [Fact]
    public async Task A_stopped_gate_is_no_evidence()
    {
        using var stop = new CancellationTokenSource();
        var result = await RunAsync(Request("echo up; sleep 3600; true"), new() { OnLine = _ => stop.Cancel() }, stop: stop.Token);
        Assert.Equal(GateVerdict.Interrupted, result.Verdict);
    }

    [Fact]
    public async Task Set_up_runs_the_same_way_and_its_key_follows_the_lock_files()
    {
        var request = Request("touch made");
        Assert.True((await SetupCommand.RunAsync(request, new(), TimeProvider.System, TestContext.Current.CancellationToken)).Passed);
        Assert.True(File.Exists(Path.Combine(folder.Worktree, "made")));
        var key = SetupCommand.KeyOf(request.Command, folder.Worktree);
        Assert.Equal(key, SetupCommand.KeyOf(request.Command, folder.Worktree));
        await File.WriteAllTextAsync(Path.Combine(folder.Worktree, "package-lock.json"), "{}", TestContext.Current.CancellationToken);
        Assert.NotEqual(key, SetupCommand.KeyOf(request.Command, folder.Worktree));
        Assert.NotEqual(key, SetupCommand.KeyOf(GateCommand.Parse("npm ci"), folder.Worktree));
    }
}
