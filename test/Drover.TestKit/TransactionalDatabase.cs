using Drover.Workflows.Sqlite;
using Drover.Workflows.Storage;

namespace Drover.TestKit;

/// <summary>A SQLite file with some components' tables and one writer session, for tests of code that runs inside a caller's transaction.</summary>
public sealed class TransactionalDatabase : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly SqliteDialect _dialect;
    private readonly WriterSession _session;

    public TransactionalDatabase(TimeProvider time, params MigrationSet[] components)
    {
        _dialect = new SqliteDialect(_folder.File("drover.db"));
        _session = _dialect.OpenWriter(time);
        Transact(s =>
        {
            Migrator.Apply(s, components);
            return 0;
        });
    }

    /// <summary>For single statements and reads.</summary>
    public SqlSession Session => _session;

    /// <summary>Runs work as one transaction: what throws leaves nothing behind.</summary>
    public T Transact<T>(Func<SqlSession, T> work)
    {
        _session.Begin();
        try
        {
            T result = work(_session);
            _session.Commit();
            return result;
        }
        catch
        {
            _session.Rollback();
            throw;
        }
    }

    public void Dispose()
    {
        _session.Dispose();
        _dialect.DisposeAsync().AsTask().GetAwaiter().GetResult();
        _folder.Dispose();
    }
}
