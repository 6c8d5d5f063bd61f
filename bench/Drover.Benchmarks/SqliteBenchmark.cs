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
    private static readonly TimeSpan Slice = TimeSpan.FromMilliseconds(330);
    private const int SlicesPerRound = 6;

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
        await WithRawAsync(raw => Task.FromResult(raw.OneByOne(WarmUp) + raw.Batches(64, WarmUp)));
        for (int round = 0; round < rounds; round++)
            await RoundAsync();
        await IdleAsync();
        Print();
        Console.WriteLine($"load after: {Load()}");
    }

    // Peer and engine take turns of a third of a second on two files, so that a noisy neighbour meets both.
    private async Task RoundAsync()
    {
        foreach ((int callers, int batch) in ((int, int)[])[(1, 1), (64, 64), (512, 256)])
        {
            await WithRawAsync(async raw => await WithEngineAsync(async engine =>
            {
                await ThroughputAsync(engine, callers, Slice, null);
                for (int slice = 0; slice < SlicesPerRound; slice++)
                {
                    double peer = batch == 1 ? raw.OneByOne(Slice) : raw.Batches(batch, Slice);
                    Note(batch == 1 ? "raw, one commit per step: steps/s" : $"raw, batches of {batch}: steps/s", peer);
                    double one = batch == 1 ? peer : raw.OneByOne(Slice);
                    if (batch > 1)
                        Note("raw, one commit per step: steps/s", one);
                    double ours = await ThroughputAsync(engine, callers, Slice, $"engine, {callers} workflows at once");
                    Note($"engine, {callers} / one raw commit per step", ours / one);
                    if (batch > 1)
                        Note($"engine, {callers} / raw batches of {batch}", ours / peer);
                }
            }));
        }
        await WithRawAsync(async raw => await WithEngineAsync(async engine =>
        {
            s_micros = null;
            await (await engine.Client.StartAsync(Timed, 1_000)).ResultAsync();
            for (int slice = 0; slice < SlicesPerRound; slice++)
            {
                List<double> peer = [], ours = s_micros = [];
                raw.OneByOne(Slice, peer);
                await (await engine.Client.StartAsync(Timed, 1_500)).ResultAsync();
                Note("raw INSERT + COMMIT alone: p50 us", Percentile(peer, 0.5));
                Note("raw INSERT + COMMIT alone: p99 us", Percentile(peer, 0.99));
                Note("engine, one step alone: p50 us", Percentile(ours, 0.5));
                Note("engine, one step alone: p99 us", Percentile(ours, 0.99));
                Note("engine, one step alone / raw, p50", Percentile(ours, 0.5) / Percentile(peer, 0.5));
            }
        }));
    }

    private async Task<double> ThroughputAsync(WorkflowEngine engine, int callers, TimeSpan length, string? name)
    {
        var watch = Stopwatch.StartNew();
        long commits = engine.Database.Writer.Commits, records = engine.Database.Writer.Records, bytes = GC.GetTotalAllocatedBytes();
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
        double rate = steps / watch.Elapsed.TotalSeconds;
        if (name is null)
            return rate;
        Note(name + ": steps/s", rate);
        Note(name + ": records per commit", (engine.Database.Writer.Records - records) / (double)(engine.Database.Writer.Commits - commits));
        Note(name + ": bytes allocated per step", (GC.GetTotalAllocatedBytes() - bytes) / (double)steps);
        Note(name + ": CPU us per step", (Environment.CpuUsage.TotalTime - processor).TotalMicroseconds / steps);
        return rate;
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

    private async Task WithRawAsync(Func<RawPeer, Task> work)
    {
        string folder = NewFolder();
        // The engine makes the tables, so that both write to the same ones.
        await using (var engine = new WorkflowEngine(Options(folder), new NoServices(), NullLogger<WorkflowEngine>.Instance))
            await engine.StartAsync();
        using (var raw = new RawPeer(Path.Combine(folder, "bench.db")))
            await work(raw);
        Directory.Delete(folder, recursive: true);
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
        Console.WriteLine($"\n{"figure",-50} {"median",10} {"lowest",10} {"highest",10} {"n",4}");
        foreach (string name in _order)
        {
            List<double> all = _figures[name];
            Console.WriteLine($"{name,-50} {Median(name),10:N2} {all.Min(),10:N2} {all.Max(),10:N2} {all.Count,4}");
        }
        Console.WriteLine($"\n{"goal (median of the ratios of neighbouring turns)",-50} {"wanted",10} {"is",10}");
        Goal("engine, 64 / one raw commit per step", 5);
        Goal("engine, 512 / one raw commit per step", 7);
        Goal("engine, 64 / raw batches of 64", 0.7);
        Goal("engine, 512 / raw batches of 256", 0.7);
        Goal("engine, one step alone / raw, p50", 1.5, atMost: true);
        // On a busy machine two threads win more than one: the quietest turn of each side is the fairer comparison.
        Quietest("64 / one raw commit", 5, "engine, 64 workflows at once: steps/s", "raw, one commit per step: steps/s");
        Quietest("512 / one raw commit", 7, "engine, 512 workflows at once: steps/s", "raw, one commit per step: steps/s");
        Quietest("64 / raw batches of 64", 0.7, "engine, 64 workflows at once: steps/s", "raw, batches of 64: steps/s");
        Quietest("512 / raw batches of 256", 0.7, "engine, 512 workflows at once: steps/s", "raw, batches of 256: steps/s");
        Quietest("one step alone p50", 1.5, "engine, one step alone: p50 us", "raw INSERT + COMMIT alone: p50 us", atMost: true);
        Note("idle: round trips/s", Median("idle: reads/s") + Median("idle: commits/s"));
        Goal("idle: round trips/s", 1, atMost: true);
    }

    private void Quietest(string name, double wanted, string ours, string peer, bool atMost = false)
    {
        double of(string figure) => atMost ? _figures[figure].Min() : _figures[figure].Max();
        Note("quietest turns: " + name, of(ours) / of(peer));
        Goal("quietest turns: " + name, wanted, atMost);
    }

    private void Goal(string name, double wanted, bool atMost = false)
    {
        double found = Median(name);
        bool reached = atMost ? found <= wanted : found >= wanted;
        Console.WriteLine($"{name,-50} {(atMost ? "<= " : ">= ") + wanted.ToString("0.0"),10} {found,10:0.00}   {(reached ? "reached" : "MISSED")}");
    }

    private static string Load() => File.Exists("/proc/loadavg") ? File.ReadAllText("/proc/loadavg").Trim() : "unknown";

    private sealed class NoServices : IServiceProvider
    {
        public object? GetService(Type serviceType) => null;
    }
}
