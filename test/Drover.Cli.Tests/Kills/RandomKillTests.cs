using System.Diagnostics;
using Drover.Workflows.Sqlite;

namespace Drover.Cli.Tests.Kills;

/// <summary>
/// Random SIGKILLs of orchestrators, agents, keepers and gits over a run of 40 tasks; restarted until it is done. The seed is
/// printed; set DROVER_KILL_SEED to repeat one. 30 kills by default, 100 with DROVER_TEST_MODE=long.
/// </summary>
[Trait("Speed", "slow")]
public sealed class RandomKillTests(ITestOutputHelper output)
{
    private const int Tasks = 40;

    [Fact]
    public async Task TS3_random_kills_lose_nothing_and_double_nothing()
    {
        int seed = int.TryParse(Environment.GetEnvironmentVariable("DROVER_KILL_SEED"), out int given) ? given : Environment.TickCount & 0xFFFFFF;
        int kills = Environment.GetEnvironmentVariable("DROVER_TEST_MODE") == "long" ? 100 : 30;
        output.WriteLine($"seed {seed}, {kills} kills");
        Console.Error.WriteLine($"random kills: seed {seed}, {kills} kills");
        var random = new Random(seed);
        var restarts = new List<double>();
        int done = 0, starts = 0, rounds = 0;
        // A run that ends before all kills were made is followed by another one.
        while (done < kills)
        {
            rounds++;
            (int made, int began) = await RoundAsync(random, kills - done, restarts, $"seed {seed}, round {rounds}");
            done += made;
            starts += began;
        }
        restarts.Sort();
        string report = $"seed {seed}: {done} kills in {rounds} runs of {Tasks} tasks, {starts} starts; 0 lost, 0 doubled, 0 stuck, 0 surviving processes; "
            + $"restart to first step: median {(restarts.Count == 0 ? 0 : restarts[restarts.Count / 2]):0} ms, worst {(restarts.Count == 0 ? 0 : restarts[^1]):0} ms (goal 2000)";
        output.WriteLine(report);
        Console.Error.WriteLine("random kills: " + report);
    }

    private static async Task<(int Kills, int Starts)> RoundAsync(Random random, int kills, List<double> restarts, string what)
    {
        using var repo = new KillRepository();
        List<string> tasks = AddGraph(repo, random);
        int done = 0, starts = 0;
        while (true)
        {
            long started = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds();
            using Process run = repo.Start("", starts++ == 0 ? ["run", "--workers", "4"] : ["resume"]);
            Task<(int Code, string Text)> end = KillRepository.EndAsync(run);
            while (!end.IsCompleted && done < kills)
            {
                // The moment of a kill is the input of this test, not a wait for something.
                await Task.WhenAny(end, Task.Delay(random.Next(100, 1_200)));
                if (end.IsCompleted)
                    break;
                done++;
                if (random.Next(2) == 0 && KillOne(repo, run.Id, random))
                    continue;
                run.Kill();
                break;
            }
            (int code, string text) = await end;
            if (starts > 1 && await FirstStepAsync(repo, started) is { } first)
                restarts.Add(first);
            // Every second time the next start comes at once, beside what is still ending.
            if (random.Next(2) == 0)
                await repo.NoSurvivorAsync($"{what}, kill {done}");
            if (code == 0)
                break;
            Assert.True(code == 137, $"{what}: the run ended with {code} after {done} kills\n{text}");
            Assert.True(starts <= kills + 3, $"{what}: no end in sight");
        }
        await repo.CheckAsync(tasks, what, exactlyOneAttempt: false);
        return (done, starts);
    }

    private static List<string> AddGraph(KillRepository repo, Random random)
    {
        var lines = new List<string>();
        for (int i = 0; i < Tasks; i++)
        {
            string[] blockers = i == 0 ? [] : [.. Enumerable.Range(0, random.Next(0, 3)).Select(_ => $"t{random.Next(i)}").Distinct()];
            string script = random.Next(7) switch
            {
                0 or 1 or 2 => $"fake: wait {random.Next(100, 1500)}ms\\nfake: edit d{i % 7}/f{i}.txt \\\"{i}\\\"",
                3 => $"fake: edit d{i % 7}/f{i}.txt \\\"{i}\\\"\\nfake: daemonise",
                4 => $"fake: commit own\\nfake: edit d{i % 7}/f{i}.txt \\\"{i}\\\"",
                5 => $"fake: flood 1MB\\nfake: edit f{i}.txt \\\"{i}\\\"",
                _ => $"fake: edit d{i % 7}/f{i}.txt \\\"{i}\\\"",
            };
            lines.Add($$"""{"id":"t{{i}}","type":"task","title":"Write file number {{i}}","description":"{{script}}","blocked_by":[{{string.Join(',', blockers.Select(b => $"\"{b}\""))}}]}""");
        }
        string file = Path.Combine(repo.Root, ".drover", "graph.jsonl");
        File.WriteAllLines(file, lines);
        repo.Program.Run("import-jsonl", file).Ok();
        return [.. repo.Program.Run("status", "--json").Ok().Json.GetProperty("tasks").EnumerateArray().Select(t => t.GetProperty("id").GetString()!)];
    }

    // An agent, a keeper or a git of this repository; false when none runs at this moment.
    private static bool KillOne(KillRepository repo, int orchestrator, Random random)
    {
        List<(int Pid, string Command)> others = [.. repo.Processes().Where(p => p.Pid != orchestrator)];
        if (others.Count == 0)
            return false;
        try
        {
            using Process victim = Process.GetProcessById(others[random.Next(others.Count)].Pid);
            victim.Kill();
        }
        catch (ArgumentException)
        {
            // It ended by itself meanwhile: a kill too late is one of the cases.
        }
        return true;
    }

    private static async Task<double?> FirstStepAsync(KillRepository repo, long since)
    {
        await using var dialect = new SqliteDialect(repo.Program.InState("drover.db"));
        long first = await dialect.ReadAsync(TimeProvider.System, db => db.Number(
            "SELECT min(started_at_epoch_ms) FROM {p}operation_outputs WHERE started_at_epoch_ms >= @since", ("@since", since)), CancellationToken.None);
        return first > 0 ? first - since : null;
    }
}
