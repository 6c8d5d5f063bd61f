using System.Diagnostics;

namespace Drover.Cli.Tests.Kills;

/// <summary>Two runs started together on one repository (acceptance item 13; F9, P8).</summary>
[Trait("Speed", "slow")]
public sealed class TogetherTests
{
    [Fact]
    public async Task P8_of_two_runs_started_together_one_works_and_no_task_has_two_agents()
    {
        using var repo = new KillRepository();
        string ledger = repo.Program.InState("ledger.txt"), agent = repo.Program.InState("agent.sh");
        File.WriteAllText(agent, $"#!/bin/sh\ncat > /dev/null\necho \"$DROVER_TASK_ID\" >> '{ledger}'\nsleep 0.3\necho x > \"$DROVER_TASK_ID.txt\"\necho did it\n");
        File.SetUnixFileMode(agent, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        repo.Program.Environment["DROVER_AGENT_TYPE"] = "command";
        repo.Program.Environment["DROVER_AGENT_PATH"] = agent;
        List<string> tasks = [.. Enumerable.Range(0, 4).Select(i => repo.Add($"Write the file of number {i}", ""))];
        using Process one = repo.Start("", "run", "--workers", "2"), two = repo.Start("", "run", "--workers", "2"), three = repo.Start("", "run", "--workers", "2");
        (int Code, string Text)[] ends = await Task.WhenAll(KillRepository.EndAsync(one), KillRepository.EndAsync(two), KillRepository.EndAsync(three));
        Assert.All(ends, end => Assert.True(end.Code is 0 or 4, $"{end.Code}: {end.Text}"));
        Assert.Contains(ends, end => end.Code == 0);
        Assert.All(ends.Where(e => e.Code == 4), end => Assert.Contains("another run works in this repository", end.Text, StringComparison.Ordinal));
        await repo.CheckAsync(tasks, "together");
        Assert.Equal(tasks.Order(), File.ReadAllLines(ledger).Order());
    }
}
