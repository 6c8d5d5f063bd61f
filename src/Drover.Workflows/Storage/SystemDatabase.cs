using Microsoft.Extensions.Logging;

namespace Drover.Workflows.Storage;

/// <summary>
/// Everything the engine reads and writes, by subject (see the other parts of this class). Knows SQL and rows; knows nothing
/// of bodies, threads or waiting.
/// </summary>
internal sealed partial class SystemDatabase : IAsyncDisposable
{
    /// <summary>The queue that takes recovered and resumed workflows which had none (DBOS reference part 2, 0.4).</summary>
    public const string InternalQueue = "_dbos_internal_queue";

    /// <summary>The step that names the successor of a workflow that continued as new.</summary>
    public const string ContinueAsNewStep = "DBOS.continueAsNew";

    private readonly TimeProvider _time;
    private long _reads;

    public SystemDatabase(SqlDialect dialect, TimeProvider time, ILogger log, string? applicationName)
    {
        (Dialect, _time, ApplicationName) = (dialect, time, applicationName);
        Writer = new CheckpointWriter(dialect, time, log);
    }

    public SqlDialect Dialect { get; }

    public CheckpointWriter Writer { get; }

    /// <summary>Owner of the rows written here; null is unclaimed.</summary>
    public string? ApplicationName { get; }

    public long NowMs => _time.GetUtcNow().ToUnixTimeMilliseconds();

    /// <summary>Creates or migrates the tables of the engine and of the given components, in one transaction.</summary>
    public Task MigrateAsync(IEnumerable<MigrationSet> components) => Writer.TransactAsync("", session =>
    {
        Migrator.Apply(session, [new MigrationSet("engine", Dialect.EngineScripts), .. components]);
        return true;
    });

    public ValueTask<T> ReadAsync<T>(Func<SqlSession, T> work, CancellationToken cancellationToken = default)
    {
        Interlocked.Increment(ref _reads);
        return Dialect.ReadAsync(_time, work, cancellationToken);
    }

    /// <summary>Reads so far; with <see cref="CheckpointWriter.Commits"/> the round trips of this process.</summary>
    public long Reads => Interlocked.Read(ref _reads);

    /// <summary>A token that no other execution ever had.</summary>
    public static string NewToken() => Guid.NewGuid().ToString();

    public async ValueTask DisposeAsync()
    {
        await Writer.DisposeAsync().ConfigureAwait(false);
        await Dialect.DisposeAsync().ConfigureAwait(false);
    }
}
