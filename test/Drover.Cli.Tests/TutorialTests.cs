using System.Diagnostics;
using Drover.TestKit;

namespace Drover.Cli.Tests;

/// <summary>
/// The seed's tutorial "Resume after crash", with a scripted program as the agent: interrupted on a pseudo-terminal and without
/// one, continued by <c>run</c> and by <c>resume</c>; nothing that finished is executed twice.
/// </summary>
[Trait("Speed", "slow")]
public sealed class TutorialTests : IDisposable
{
    private readonly DroverProgram _program = new();
    private readonly string _ledger, _go;
    private readonly string _a, _b, _c, _d;
    private readonly string _epic;

    public TutorialTests()
    {
        _ledger = _program.InState("ledger.txt");
        _go = _program.InState("go");
        string agent = _program.InState("agent.sh");
        // Waits for the test's word, except in the first task. What it is asked to do comes by the contract of `command` agents.
        File.WriteAllText(agent, $"""
            #!/bin/sh
            cat > /dev/null
            echo "begin $DROVER_TASK_TITLE" >> '{_ledger}'
            case "$DROVER_TASK_TITLE" in
              "Task A"*) ;;
              *) while [ ! -e '{_go}' ]; do sleep 0.05; done ;;
            esac
            echo "$DROVER_TASK_ID $DROVER_ATTEMPT" > "$DROVER_TASK_ID.txt"
            echo "end $DROVER_TASK_TITLE" >> '{_ledger}'
            """);
        File.SetUnixFileMode(agent, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        _program.Environment["DROVER_AGENT_TYPE"] = "command";
        _program.Environment["DROVER_AGENT_PATH"] = agent;
        _epic = _program.Run("epic", "add", "Crash recovery demo", "--json").Ok().Json.GetProperty("id").GetString()!;
        _a = Add("Task A — base change");
        _b = Add("Task B — depends on A", "--blocked-by", _a);
        _c = Add("Task C — depends on A", "--blocked-by", _a);
        _d = Add("Task D — depends on B and C", "--blocked-by", _b, "--blocked-by", _c);
    }

    private string Add(string title, params string[] more) =>
        _program.Run(["add", title, "--epic", _epic, "--json", .. more]).Ok().Json.GetProperty("id").GetString()!;

    private string[] Ledger => File.Exists(_ledger) ? File.ReadAllLines(_ledger) : [];

    private Task UntilTwoRunAsync() => Eventually.TrueAsync(
        () => Ledger.Contains("begin Task B — depends on A") && Ledger.Contains("begin Task C — depends on A"), "B and C are in progress");

    private static async Task<int> EndAsync(Process process)
    {
        using var bound = new CancellationTokenSource(TimeSpan.FromSeconds(90));
        await process.WaitForExitAsync(bound.Token);
        return process.ExitCode;
    }

    private void ShowsMixedStates(params string[] words)
    {
        string tree = _program.Run("status", "--tree").Ok().Output;
        foreach (string word in words)
            Assert.Contains(word, tree, StringComparison.Ordinal);
    }

    private void AllLandedOnce()
    {
        string[] landed = _program.Git("log", "--first-parent", "--format=%(trailers:key=Drover-Task,valueonly,separator=%x2C)", "trunk")
            .Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(new[] { _a, _b, _c, _d }.Order(), landed.Order());
        Assert.Equal("4 completed", string.Join(' ', _program.Run("status", "--oneline").Ok().Output.Split(", ").Where(p => p.Contains("completed", StringComparison.Ordinal))).Trim());
    }

    [Fact]
    public async Task X09_one_ctrl_c_on_a_terminal_lets_agents_finish_and_resume_does_the_rest()
    {
        using var terminal = new TerminalProgram(_program, "run", "--workers", "2", "--epic", _epic, "--verbose");
        await UntilTwoRunAsync();
        ShowsMixedStates("completed", "in_progress", "blocked");
        await terminal.TypeAsync("\x03");
        await terminal.ShowsAsync("press again");
        File.WriteAllText(_go, "");
        Assert.Equal(130, await terminal.EndAsync());
        ShowsMixedStates("completed", "ready");
        Answer resumed = _program.Run("resume");
        Assert.Equal(0, resumed.ExitCode);
        AllLandedOnce();
        // Every agent began once and ended once: nothing was executed twice.
        Assert.Equal(8, Ledger.Length);
        Assert.Equal(Ledger.Distinct().Count(), Ledger.Length);
    }

    [Fact]
    public async Task X09_two_ctrl_c_stop_the_agents_and_run_again_finishes()
    {
        using var terminal = new TerminalProgram(_program, "run", "--workers", "2", "--epic", _epic);
        await UntilTwoRunAsync();
        await terminal.TypeAsync("\x03");
        await terminal.ShowsAsync("press again");
        await terminal.TypeAsync("\x03");
        Assert.Equal(130, await terminal.EndAsync());
        ShowsMixedStates("completed", "blocked");
        File.WriteAllText(_go, "");
        Assert.Equal(0, _program.Run("run", "--workers", "2", "--epic", _epic).ExitCode);
        AllLandedOnce();
        Assert.Single(Ledger, l => l == "begin Task A — base change");
        Assert.Single(Ledger, l => l == "end Task B — depends on A");
        // The interrupt counted nothing.
        Assert.All(_program.Run("status", "--json").Ok().Json.GetProperty("tasks").EnumerateArray(), t => Assert.Equal(1, t.GetProperty("attempts").GetInt32()));
    }

    [Theory]
    [InlineData("INT")]
    [InlineData("TERM")]
    public async Task X09_without_a_terminal_one_signal_stops_everything_and_resume_finishes(string signal)
    {
        using Process run = Process.Start(_program.StartInfo(_program.Root, "run", "--workers", "2", "--epic", _epic))!;
        run.StandardInput.Close();
        run.BeginErrorReadLine();
        run.BeginOutputReadLine();
        await UntilTwoRunAsync();
        using (Process kill = Process.Start("kill", [$"-{signal}", run.Id.ToString()]))
            await kill.WaitForExitAsync();
        Assert.Equal(130, await EndAsync(run));
        ShowsMixedStates("completed", "blocked");
        File.WriteAllText(_go, "");
        Answer resumed = _program.Run("resume");
        Assert.Equal(0, resumed.ExitCode);
        Assert.Contains("unfinished run", resumed.Error + resumed.Output, StringComparison.Ordinal);
        AllLandedOnce();
        Assert.Single(Ledger, l => l == "begin Task A — base change");
    }

    public void Dispose()
    {
        File.WriteAllText(_go, "");
        _program.Dispose();
    }
}
