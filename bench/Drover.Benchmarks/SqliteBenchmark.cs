using System.Diagnostics;
using Drover.Workflows;
using Drover.Workflows.Sqlite;
using Microsoft.Extensions.Logging.Abstractions;

namespace Drover.Benchmarks;

/// <summary>Durable steps on SQLite beside what the library can do; rounds interleaved, medians printed.</summary>
internal sealed class SqliteBenchmark(string parent)
{
    /// <summary>A result of about 30 bytes as stored.</summary>
    public const string Result = "\"a result of some thirty bytes\"";

    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan Measured = TimeSpan.FromSeconds(2);

    private static readonly Workflow<int, int> Ten = Workflow.Define<int, int>("ten", async (context, n) =>
    {
        for (int i = 0; i < n; i++)
            await context.StepAsync("step", static _ => Task.FromResult("a result of some thirty bytes"));
        return n;
    });

    private static List<double>? s_micros;

    private static readonly Workflow<int, int> Timed = Workflow.Define<int, int>("timed", async (context, n) =>
    {
        for (int i = 0; i < n; i++)
        {
            long started = Stopwatch.GetTimestamp();
            await context.StepAsync("step", static _ => Task.FromResult("a result of some thirty bytes"));
            s_micros?.Add(Stopwatch.GetElapsedTime(started).TotalMicroseconds);
        }
        return n;
    });

    private readonly Dictionary<string, List<double>> _figures = [];
    private readonly List<string> _order = [];

    public async Task RunAsync(int rounds)
    {
        Console.WriteLine($"SQLite {NativeLibraryChoice.Version} ({NativeLibraryChoice.Source}), WAL, synchronous=FULL; {Environment.ProcessorCount} cores; .NET {Environment.Version}; {rounds} rounds");
        Console.WriteLine($"load before: {Load()}");
        await WithEngineAsync(engine => ThroughputAsync(engine, 64, WarmUp, null));
        await WithEngineAsync(engine => ThroughputAsync(engine, 1, WarmUp, null));
        await WithRawAsync(raw => raw.OneByOne(WarmUp) + raw.Batches(64, WarmUp));
        for (int round = 0; round < rounds; round++)
            await RoundAsync();
        await IdleAsync();
        Print();
        Console.WriteLine($"load after: {Load()}");
    }

    private async Task RoundAsync()
    {
        Note("raw, one commit per step: steps/s", await WithRawAsync(raw => raw.OneByOne(Measured)));
        foreach ((int callers, int batch) in ((int, int)[])[(1, 1), (64, 64), (512, 256)])
        {
            if (batch > 1)
                Note($"raw, batches of {batch}: steps/s", await WithRawAsync(raw => raw.Batches(batch, Measured)));
            await WithEngineAsync(async engine =>
            {
                await ThroughputAsync(engine, callers, Measured / 4, null);
                await ThroughputAsync(engine, callers, Measured, $"engine, {callers} workflows at once");
            });
        }
        List<double> raw = [];
        await WithRawAsync(peer => peer.OneByOne(Measured, raw));
        Note("raw INSERT + COMMIT alone: p50 us", Percentile(raw, 0.5));
        Note("raw INSERT + COMMIT alone: p99 us", Percentile(raw, 0.99));
        List<double> steps = [];
        await WithEngineAsync(async engine =>
        {
            s_micros = null;
            await (await engine.Client.StartAsync(Timed, 2_000)).ResultAsync();
            s_micros = steps;
            await (await engine.Client.StartAsync(Timed, 8_000)).ResultAsync();
        });
        Note("engine, one step alone: p50 us", Percentile(steps, 0.5));
        Note("engine, one step alone: p99 us", Percentile(steps, 0.99));
    }

    private async Task ThroughputAsync(WorkflowEngine engine, int callers, TimeSpan length, string? name)
    {
        var watch = Stopwatch.StartNew();
        long commits = engine.Database.Writer.Commits, records = engine.Database.Writer.Records, bytes = GC.GetTotalAllocatedBytes(true);
        long steps = 0;
        TimeSpan processor = Environment.CpuUsage.TotalTime;
        await Task.WhenAll(Enumerable.Range(0, callers).Select(_ => Task.Run(async () =>
        {
            while (watch.Elapsed < length)
            {
                await (await engine.Client.StartAsync(Ten, 10)).ResultAsync();
                Interlocked.Add(ref steps, 10);
            }
        })));
        double seconds = watch.Elapsed.TotalSeconds;
        if (name is null)
            return;
        Note(name + ": steps/s", steps / seconds);
        Note(name + ": records per commit", (engine.Database.Writer.Records - records) / (double)(engine.Database.Writer.Commits - commits));
        Note(name + ": bytes allocated per step", (GC.GetTotalAllocatedBytes(true) - bytes) / (double)steps);
        Note(name + ": CPU us per step", (Environment.CpuUsage.TotalTime - processor).TotalMicroseconds / steps);
    }

    private Task IdleAsync() => WithEngineAsync(async engine =>
    {
        await engine.Client.ListAsync();
        long reads = engine.Database.Reads, commits = engine.Database.Writer.Commits;
        var watch = Stopwatch.StartNew();
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(20));
        await timer.WaitForNextTickAsync();
        Note("idle: reads/s", (engine.Database.Reads - reads) / watch.Elapsed.TotalSeconds);
        Note("idle: commits/s", (engine.Database.Writer.Commits - commits) / watch.Elapsed.TotalSeconds);
    });

    private async Task WithEngineAsync(Func<WorkflowEngine, Task> work)
    {
        string folder = NewFolder();
        await using (var engine = new WorkflowEngine(Options(folder), new NoServices(), NullLogger<WorkflowEngine>.Instance))
        {
            await engine.StartAsync();
            await work(engine);
        }
        Directory.Delete(folder, recursive: true);
    }

    private async Task<double> WithRawAsync(Func<RawPeer, double> work)
    {
        string folder = NewFolder();
        // The engine makes the tables, so that both write to the same ones.
        await using (var engine = new WorkflowEngine(Options(folder), new NoServices(), NullLogger<WorkflowEngine>.Instance))
            await engine.StartAsync();
        double figure;
        using (var raw = new RawPeer(Path.Combine(folder, "bench.db")))
            figure = work(raw);
        Directory.Delete(folder, recursive: true);
        return figure;
    }

    private static WorkflowEngineOptions Options(string folder) => new WorkflowEngineOptions { ApplicationName = "bench", ApplicationVersion = "v1" }
        .UseSqlite(Path.Combine(folder, "bench.db")).AddWorkflow(Ten).AddWorkflow(Timed);

    private string NewFolder() => Directory.CreateDirectory(Path.Combine(parent, $"drover-bench-{Guid.NewGuid():N}")).FullName;

    private void Note(string name, double figure)
    {
        if (!_figures.TryGetValue(name, out List<double>? all))
        {
            _figures.Add(name, all = []);
            _order.Add(name);
        }
        all.Add(figure);
    }

    private double Median(string name) => Percentile(_figures[name], 0.5);

    private static double Percentile(List<double> values, double at)
    {
        double[] sorted = [.. values.Order()];
        return sorted[(int)Math.Min(sorted.Length - 1, sorted.Length * at)];
    }

    private void Print()
    {
        Console.WriteLine($"\n{"figure",-52} {"median",12}   all rounds");
        foreach (string name in _order)
            Console.WriteLine($"{name,-52} {Median(name),12:N1}   {string.Join(" · ", _figures[name].Select(v => v.ToString("N1")))}");
        double one = Median("raw, one commit per step: steps/s");
        Console.WriteLine($"\n{"goal",-52} {"wanted",8} {"is",8}");
        Goal("64 workflows / one raw commit per step", 5, Median("engine, 64 workflows at once: steps/s") / one);
        Goal("512 workflows / one raw commit per step", 7, Median("engine, 512 workflows at once: steps/s") / one);
        Goal("64 workflows / raw batches of 64", 0.7, Median("engine, 64 workflows at once: steps/s") / Median("raw, batches of 64: steps/s"));
        Goal("512 workflows / raw batches of 256", 0.7, Median("engine, 512 workflows at once: steps/s") / Median("raw, batches of 256: steps/s"));
        Goal("one step alone p50 / raw INSERT + COMMIT p50", 1.5, Median("engine, one step alone: p50 us") / Median("raw INSERT + COMMIT alone: p50 us"), atMost: true);
        Goal("idle round trips per second", 1, Median("idle: reads/s") + Median("idle: commits/s"), atMost: true);
    }

    private static void Goal(string name, double wanted, double found, bool atMost = false)
    {
        bool reached = atMost ? found <= wanted : found >= wanted;
        Console.WriteLine($"{name,-52} {(atMost ? "<= " : ">= ") + wanted.ToString("0.0#"),8} {found,8:0.00}   {(reached ? "reached" : "MISSED")}");
    }

    private static string Load() => File.Exists("/proc/loadavg") ? File.ReadAllText("/proc/loadavg").Trim() : "unknown";

    private sealed class NoServices : IServiceProvider
    {
        public object? GetService(Type serviceType) => null;
    }
}
