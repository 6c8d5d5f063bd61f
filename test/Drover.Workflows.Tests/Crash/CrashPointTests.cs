using Drover.TestKit;

namespace Drover.Workflows.Tests.Crash;

[Trait("Speed", "slow")]
public sealed class CrashPointTests(ITestOutputHelper output)
{
    private const int Killed = 137;

    public static TheoryData<string> Points()
    {
        var points = new TheoryData<string>();
        for (int place = 1; place <= 9; place++)
        {
            foreach (int n in place is >= 3 and <= 6 ? (int[])[1, 2, 5, 13] : [1, 2, 5])
                points.Add($"executor.{place}#{n}");
        }
        for (int place = 1; place <= 5; place++)
        {
            foreach (int n in (int[])[1, 2, 5, 13, 21])
                points.Add($"writer.{place}#{n}");
        }
        foreach (int n in (int[])[1, 2, 4])
            points.Add($"transact.1#{n}");
        return points;
    }

    [Theory]
    [MemberData(nameof(Points))]
    public async Task P3_P5_I1_I2_I3_I6_I10_a_kill_at_a_crash_point_loses_and_repeats_nothing(string point)
    {
        using var run = new ChaosRun();
        ChildProcess first = run.Start("mix", ["2"], ("DROVER_CRASH_POINT", point));
        Assert.Equal(Killed, await first.ExitAsync());
        var recorded = await run.RecordedAsync();
        ChildProcess second = run.Start("mix", ["2"]);
        int exit = await second.ExitAsync();
        Assert.True(exit == 0, $"the recovering process ended with {exit}: {second.Errors}");
        run.AssertNotRepeated(recorded, second.Id);
        await run.AssertMixAsync(2);
    }

    [Fact]
    public async Task F1_random_kills_lose_and_repeat_nothing()
    {
        int kills = Environment.GetEnvironmentVariable("DROVER_TEST_MODE") == "long" ? 200 : 20;
        int seed = Environment.GetEnvironmentVariable("DROVER_TEST_SEED") is { Length: > 0 } given
            ? int.Parse(given) : Random.Shared.Next();
        output.WriteLine($"seed {seed} (DROVER_TEST_SEED={seed} repeats it)");
        var random = new Random(seed);
        using var run = new ChaosRun();
        int count = kills * 40;
        int done = 0;
        for (; done < kills; done++)
        {
            var recorded = await run.RecordedAsync();
            ChildProcess child = run.Start("mix", [$"{count}"]);
            await child.LineAsync("ready");
            // The one deliberate pause: the moment of the kill is what is random.
            await Task.Delay(random.Next(5, 300));
            if (child.HasExited)
                break;
            child.Kill();
            await child.ExitAsync();
            run.AssertNotRepeated(recorded, child.Id);
        }
        var before = await run.RecordedAsync();
        ChildProcess last = run.Start("mix", [$"{count}"]);
        int exit = await last.ExitAsync(TimeSpan.FromMinutes(5));
        Assert.True(exit == 0, $"the last process ended with {exit}: {last.Errors}");
        run.AssertNotRepeated(before, last.Id);
        await run.AssertMixAsync(count);
        var times = run.Ledger().CountBy(e => (e.Workflow, e.Step)).CountBy(p => p.Value).OrderBy(p => p.Key);
        output.WriteLine($"{done} kills, {count * 2} workflows; step executions: {string.Join(", ", times.Select(t => $"{t.Key}x: {t.Value}"))}");
    }
}
