using Drover.TestKit;
using Drover.Workflows.Sqlite;
using Drover.Workflows.Storage;

namespace Drover.Workflows.Tests.Crash;

/// <summary>A database, a ledger, and children that work on them.</summary>
internal sealed class ChaosRun : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly List<ChildProcess> _children = [];

    public string Database => _folder.File("drover.db");

    public string LedgerPath => _folder.File("ledger");

    public string Folder => _folder.Path;

    public ChildProcess Start(string scenario, string[] args, params (string Name, string? Value)[] environment)
    {
        ChildProcess child = ChildProcess.Start("Drover.Chaos", ["engine", Database, LedgerPath, scenario, .. args], environment);
        _children.Add(child);
        return child;
    }

    public void Go() => File.WriteAllText(LedgerPath + ".go", "");

    /// <summary>What the steps wrote; a line torn by a kill cannot occur, because each is one write.</summary>
    public List<Entry> Ledger() => !File.Exists(LedgerPath) ? [] : [.. File.ReadAllLines(LedgerPath).Select(line =>
    {
        string[] parts = line.Split(' ');
        return new Entry(parts[0], parts[1], int.Parse(parts[3]), parts[4]);
    })];

    public async Task<T> ReadAsync<T>(Func<SqlSession, T> work)
    {
        await using var dialect = new SqliteDialect(Database);
        return await dialect.ReadAsync(TimeProvider.System, work, CancellationToken.None);
    }

    /// <summary>Steps whose result is recorded: from now on they may not run again.</summary>
    public async Task<HashSet<(string Workflow, string Step)>> RecordedAsync() => !File.Exists(Database) ? [] : await ReadAsync(session =>
        session.Number("SELECT count(*) FROM sqlite_master WHERE name = 'operation_outputs'") == 0 ? []
            : session.Query("SELECT workflow_uuid, function_name FROM operation_outputs", r => (r.GetString(0), r.GetString(1))).ToHashSet());

    /// <summary>No step ran in a process that began after its result was recorded.</summary>
    public void AssertNotRepeated(HashSet<(string Workflow, string Step)> recorded, int processId)
    {
        Entry[] repeated = [.. Ledger().Where(e => e.ProcessId == processId && recorded.Contains((e.Workflow, e.Step)))];
        Assert.True(repeated.Length == 0, $"I2: ran after their checkpoint: {string.Join(" | ", repeated.Take(5))}");
    }

    /// <summary>The invariants of the scenario "mix" once everything is done.</summary>
    public async Task AssertMixAsync(int count)
    {
        string[] generations = [.. Enumerable.Range(0, count).SelectMany(i => (string[])[$"mix-{i}", $"mix-{i}:c2"])];
        var states = await ReadAsync(session => session.Query("SELECT workflow_uuid, status FROM workflow_status", r => (r.GetString(0), r.GetString(1))));
        Assert.All(states, s => Assert.True(s.Item2 == "SUCCESS", $"I1: {s.Item1} is {s.Item2}"));
        Assert.Equal(generations.Length + (count + 9) / 10, states.Count);

        var rows = await ReadAsync(session => session.Query("SELECT workflow FROM chaos_rows", r => r.GetString(0)));
        Assert.Equal(generations.Order(StringComparer.Ordinal), rows.Order(StringComparer.Ordinal));

        List<Entry> ledger = Ledger();
        string[] steps = ["first", "left", "middle", "right", "last"];
        var ran = ledger.Select(e => (e.Workflow, e.Step)).ToHashSet();
        Assert.All(generations, g => Assert.All(steps, s => Assert.Contains((g, s), ran)));

        // I10: what the receivers got is what was sent, each once.
        var outputs = await ReadAsync(session => session.Query(
            "SELECT o.output FROM workflow_output o JOIN workflow_status w USING (workflow_uuid) WHERE w.name = 'receiver'", r => r.GetString(0).Trim('"')));
        Assert.Equal(generations.Order(StringComparer.Ordinal), outputs.SelectMany(o => o.Split(',')).Order(StringComparer.Ordinal));
        Assert.Equal(0, await ReadAsync(session => session.Number("SELECT count(*) FROM notifications WHERE consumed = 0")));
        Assert.Equal(generations.Length, await ReadAsync(session => session.Number("SELECT count(*) FROM notifications")));

        Assert.Equal("ok", await ReadAsync(session => session.Text("PRAGMA integrity_check")));
        Assert.Equal(0, await ReadAsync(session => session.Number("SELECT count(*) FROM drover_executors")));
        // I9: a kill between taking the life lock and writing the row leaves a file that a later start removes when it is a minute old.
        Assert.InRange(Directory.GetFiles(Folder).Count(f => f.Contains(".executor-", StringComparison.Ordinal)), 0, 2);
    }

    public void Dispose()
    {
        foreach (ChildProcess child in _children)
            child.Dispose();
        _folder.Dispose();
    }

    internal sealed record Entry(string Workflow, string Step, int ProcessId, string Note);
}
