using Drover.TestKit;

namespace Drover.Cli.Tests;

/// <summary>A run on a pseudo-terminal: what it shows while it works, the third Ctrl+C, and a closed window.</summary>
[Trait("Speed", "slow")]
public sealed class TerminalTests : IDisposable
{
    private readonly DroverProgram _program = new();
    private readonly string _task;

    public TerminalTests() => _task = _program.Add("Write the parser");

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Progress_shows_task_agent_elapsed_time_and_a_bar(bool verbose)
    {
        _program.UseWaitingAgent();
        using var terminal = new TerminalProgram(_program, verbose ? ["run", "--verbose"] : ["run"]);
        await terminal.MatchesAsync($@"{_task} Write the parser +command +agent.* [0-9]+s");
        await terminal.MatchesAsync(@"\[░{40}\] 0/1 \(0\.0%\)");
        await terminal.ShowsAsync($"{_task} started: Write the parser");
        if (verbose)
            await terminal.MatchesAsync($@"[0-9:]{{8}} {_task} agent\s");
        _program.LetGo();
        Assert.Equal(0, await terminal.EndAsync());
        Assert.Contains($"{_task} landed as ", terminal.Screen, StringComparison.Ordinal);
        Assert.Contains("finished: everything is on trunk", terminal.Screen, StringComparison.Ordinal);
    }

    [Fact]
    public async Task X09_a_third_ctrl_c_exits_at_once_and_resume_finishes_the_same_attempt()
    {
        _program.UseWaitingAgent(stubborn: true);
        using var terminal = new TerminalProgram(_program, "run");
        await _program.BeginsAsync(_task);
        await terminal.TypeAsync("\x03");
        await terminal.ShowsAsync("press again");
        await terminal.TypeAsync("\x03");
        await terminal.ShowsAsync("stopping the agents");
        await terminal.TypeAsync("\x03");
        Assert.Equal(130, await terminal.EndAsync());
        Assert.Contains("stopped at once", terminal.Screen, StringComparison.Ordinal);
        Assert.True(terminal.CursorIsVisible);
        Finishes();
    }

    [Fact]
    public async Task X09_closing_the_terminal_stops_the_agents_and_resume_finishes_the_same_attempt()
    {
        _program.UseWaitingAgent();
        using (var terminal = new TerminalProgram(_program, "run"))
        {
            await _program.BeginsAsync(_task);
            terminal.Close();
        }
        await Eventually.TrueAsync(() => _program.Run("status").Ok().Output.Contains("nobody works on it", StringComparison.Ordinal), "the run has ended");
        Finishes();
    }

    private void Finishes()
    {
        _program.LetGo();
        _program.Run("resume").Ok();
        Assert.Equal([_task], _program.Landings());
        Assert.Equal(1, _program.Tasks()["Write the parser"].GetProperty("attempts").GetInt32());
    }

    public void Dispose()
    {
        _program.LetGo();
        _program.Dispose();
    }
}
