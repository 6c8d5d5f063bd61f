using System.Diagnostics;

namespace Drover.Cli.Tests.Kills;

/// <summary>
/// SIGKILL of the orchestrator before and after every numbered step of a task's life, then `drover resume`: everything lands
/// exactly once, no attempt is counted, nothing survives (acceptance item 2; T-06, I4, I8, I9).
/// </summary>
[Trait("Speed", "slow")]
public sealed class KillPointTests
{
    public static TheoryData<string> Points()
    {
        var points = new TheoryData<string>();
        foreach (int step in Enumerable.Range(1, 11))
        {
            points.Add($"task.{step}.before");
            points.Add($"task.{step}.after");
        }
        foreach (int step in Enumerable.Range(1, 5))
        {
            points.Add($"landing.{step}.before");
            points.Add($"landing.{step}.after");
        }
        points.Add("run.1");
        points.Add("run.1#3");
        points.Add("run.2");
        return points;
    }

    [Theory]
    [MemberData(nameof(Points))]
    public async Task T06_a_kill_here_loses_nothing_and_repeats_nothing(string point)
    {
        using var repo = new KillRepository();
        // The second meets the first in a conflict and solves it in its own attempt; the third depends on both.
        string a = repo.Add("Change the line one way", "fake: conflict shared.txt");
        string b = repo.Add("Change the line another way", "fake: wait 400ms\nfake: conflict shared.txt");
        string c = repo.Add("Build on both", "fake: edit third.txt \"three\"", a, b);
        using (Process killed = repo.Start(point, "run", "--workers", "2"))
        {
            (int code, string text) = await KillRepository.EndAsync(killed);
            Assert.True(code == 137, $"{point}: the run was not killed there but ended with {code}\n{text}");
        }
        // At once, beside whatever keepers, gates and gits of the killed one are still ending.
        using (Process resumed = repo.Start("", "resume"))
        {
            (int code, string text) = await KillRepository.EndAsync(resumed);
            // Killed after the very last write, there is nothing left to resume.
            Assert.True(code == 0 || (point == "task.11.after" && code == 3), $"{point}: resume ended with {code}\n{text}");
        }
        await repo.CheckAsync([a, b, c], point);
    }
}
